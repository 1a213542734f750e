#pragma once

#include <string>
#include <vector>

#include <simdjson.h>

#include "main/remote.h"
#include "publication/contract_set.h"

namespace offprint {

// offprint contract register|list|unregister: who reads what a database publishes.
void add_contract_consumers(CLI::App& contract, int& exit_code);

// …/v1/databases/NAME/publications of a database that is given by its name or URL.
Result<std::string> publications_url(const RemoteOptions& remote, const std::string& database);

// "orders(id, total), items": what a consumer as the server tells it reads.
std::string reads_text(simdjson::dom::element consumer);

// The registered consumers of all live versions that a database publishes, each as a contract that
// reads those columns of the database itself that its publication makes for it. Blocks.
Result<std::vector<publication::Contract>> registered_contracts(const RemoteOptions& remote,
                                                                const std::string& database);

}  // namespace offprint
