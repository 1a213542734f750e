#pragma once

#include <memory>
#include <string>

#include "base/result.h"
#include "cluster/guardian_page.h"
#include "main/clustering.h"

namespace offprint {

// `serve --guardian`: the process splits in two. The server goes on in a child, where this returns
// the page on which it leaves what its guardian has to know. The parent never returns: it passes
// signals on, waits until the child is dead, tells the cluster if that was primary, and ends as it
// did. Each ends with the other: the child by SIGKILL.
// Before any thread exists. Errors, with nobody split: the secret's file, no memory, no process.
Result<std::unique_ptr<cluster::GuardianPage>> run_guarded(const ClusterOptions& options);

}  // namespace offprint
