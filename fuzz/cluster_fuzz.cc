// What a cluster's coordinator answers and keeps: records of groups, etcd's answers, the file of a
// single node. What is understood survives being written again.
#include <cstdint>
#include <string>
#include <string_view>

#include "base/assert.h"
#include "base/fault_file_system.h"
#include "cluster/coordinator_file.h"
#include "cluster/etcd_messages.h"
#include "cluster/group_record.h"

using namespace offprint;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  std::string_view text(reinterpret_cast<const char*>(data), size);
  if (auto record = cluster::GroupRecord::parse(text)) {
    auto again = cluster::GroupRecord::parse(record->to_json());
    OFFPRINT_ASSERT(again && *again == *record);
  }
  if (auto range = cluster::parse_etcd_range(text)) {
    for (const cluster::EtcdEntry& each : range->entries) OFFPRINT_ASSERT(each.entry.version > 0);
  }
  if (auto txn = cluster::parse_etcd_txn(text, "/k"))
    OFFPRINT_ASSERT(!txn->current || txn->current->key == "/k");
  (void)cluster::parse_etcd_watch(text);
  (void)cluster::parse_etcd_keep_alive(text);
  (void)cluster::parse_etcd_grant(text);
  (void)cluster::parse_etcd_token(text);
  (void)cluster::parse_etcd_failure(503, text).is_definite();

  FaultFileSystem files;
  OFFPRINT_ASSERT(write_file_atomically(files, "/register", as_bytes(text)).has_value());
  if (auto state = cluster::load_register(files, "/register")) {
    OFFPRINT_ASSERT(cluster::save_register(files, "/register", *state).has_value());
    auto again = cluster::load_register(files, "/register");
    OFFPRINT_ASSERT(again && again->revision == state->revision &&
                    again->entries == state->entries);
  }
  return 0;
}
