#include "replica/replica_position.h"

#include <fmt/format.h>

#include "base/file_system.h"
#include "ltx/checksum.h"
#include "replica/position_file.h"
#include "sqlite/connection.h"

namespace offprint::replica {
namespace {

// The page as readers of FILE see it now; nothing: there is none.
Result<std::optional<Bytes>> visible_page(const std::string& file, PageNo page) {
  sqlite::Connection::Options options;
  options.read_only = true;
  OFFPRINT_TRY_ASSIGN(auto connection, sqlite::Connection::open(file, options));
  OFFPRINT_TRY_ASSIGN(auto select,
                      connection.prepare("SELECT data FROM sqlite_dbpage('main') WHERE pgno=?1"));
  select.bind(1, page);
  OFFPRINT_TRY_ASSIGN(bool found, select.step());
  if (!found) return std::optional<Bytes>();
  ByteView image = select.column_blob(0);
  return std::optional<Bytes>(Bytes(image.begin(), image.end()));
}

}  // namespace

Result<ReplicaStanding> read_replica_position(const std::string& file) {
  OFFPRINT_TRY_ASSIGN(Note note, read_note(FileSystem::real(), file + "-offprint"));
  ReplicaStanding standing{note.after.position, note.source};
  if (note.probe.page != 0) {
    OFFPRINT_TRY_ASSIGN(auto image, visible_page(file, note.probe.page));
    Checksum checksum;
    if (image) {
      mask_probe(note.probe.page, *image);
      checksum = ltx::page_checksum(note.probe.page, *image);
    }
    bool after = image && checksum == note.probe.after;
    bool before = image ? note.probe.existed && checksum == note.probe.before : !note.probe.existed;
    if (!after && !before) return fail(Code::kBehind, file + " is just being changed");
    if (!after) standing.position = note.before.position;
  }
  if (standing.position.lineage == Lineage{})
    return fail(Code::kBehind, file + " is just being made");
  return standing;
}

}  // namespace offprint::replica
