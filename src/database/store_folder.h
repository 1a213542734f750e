#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "base/file_system.h"
#include "base/result.h"

// What lies where in a store's folder. docs/guides/operations.md.
namespace offprint::database {

// The file of the database with this number.
std::string database_file(const std::string& directory, std::uint64_t id);

// Where page 1 says whether the file is in WAL mode: two bytes of 2.
inline constexpr std::size_t kWriteVersion = 18;
// Makes it say so.
Result<> mark_as_wal(File& file);

// Makes it with its parents, so that no power loss takes one of them.
Result<> make_store_folder(FileSystem& files, const std::string& directory);

// kCorrupt: there are databases, but no journal. They would be taken for empty ones, and their
// followers would follow.
Result<> check_journal_is_there(FileSystem& files, const std::string& directory);

// A folder with this file is one that a restore has not finished with.
inline constexpr const char* kRestoringFile = "restoring";

// kInvalid: it is such a folder.
Result<> check_is_whole(FileSystem& files, const std::string& directory);

// Where a file waits that is to become a database's (Store::adopt_file) until the journal says so.
inline constexpr const char* kAdoptedSuffix = ".adopted";

// Puts the file that waits in its place. Again is no error.
Result<> finish_adoption(FileSystem& files, const std::string& path);

// The same for all whose databases were written; the others go.
Result<> finish_adoptions(FileSystem& files, const std::string& directory,
                          const std::function<bool(std::uint64_t id)>& was_written);

// Removes files of databases that are not among the paths in `known`: left by a drop that was cut
// short.
Result<> remove_orphans(FileSystem& files, const std::string& directory,
                        std::vector<std::string> known);

// Whether a database file is absent, or nothing was written to it but how its pages are.
bool has_no_content(FileSystem& files, const std::string& path);

}  // namespace offprint::database
