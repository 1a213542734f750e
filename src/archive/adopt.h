#pragma once

#include <atomic>
#include <string>

#include "archive/history.h"
#include "archive/object_store.h"
#include "archive/restore.h"
#include "base/file_system.h"
#include "database/store.h"

namespace offprint::archive {

// Makes a database of a file that was restored from an archive with that history, or gives it to
// one that was never written. It goes on in the history's lineage, in an epoch above all that the
// archive has. The file moves. Blocks. Errors: as Store::adopt_file.
Result<Bookmark> adopt_restored(database::Store& store, const database::DatabaseName& name,
                                const std::string& file, const Restored& restored,
                                const History& history, FileSystem& files = FileSystem::real());

// Makes a database of the newest state in the archive of its name, below `objects`; its next
// transactions go there too. An archive that has no history, such as Litestream writes it, gets
// one: it is ours from then on, whoever wrote it must have ended. `scratch` is a folder on the
// store's file system. Blocks. kNotFound: no such archive; kConflict: the name is taken; and what
// restore_file() answers.
Result<Bookmark> create_from_archive(ObjectStore& objects, database::Store& store,
                                     const database::DatabaseName& name, const std::string& scratch,
                                     const std::atomic<bool>* cancelled = nullptr);

}  // namespace offprint::archive
