#include "server/database_templates.h"

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <memory>

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include "database/sql_load.h"

namespace offprint::server {
namespace {

// A file of the spool folder, gone with this object.
class SpoolFile {
 public:
  static Result<std::unique_ptr<SpoolFile>> create(const Service& service) {
    std::string path = service.options.spool_directory + "/template-XXXXXX";
    int descriptor = ::mkostemp(path.data(), O_CLOEXEC);
    if (descriptor < 0) return fail(io_error("create " + path, errno));
    return std::unique_ptr<SpoolFile>(new SpoolFile(std::move(path), ::fdopen(descriptor, "w+b")));
  }
  ~SpoolFile() {
    close();
    for (const char* suffix : {"", "-wal", "-shm", "-journal"}) ::unlink((path_ + suffix).c_str());
  }
  Result<> write(std::string_view bytes) {
    if (std::fwrite(bytes.data(), 1, bytes.size(), file_) != bytes.size())
      return fail(io_error("write " + path_, errno));
    return {};
  }
  Result<> flush() {
    if (std::fflush(file_) != 0) return fail(io_error("write " + path_, errno));
    return {};
  }
  void close() {
    if (file_ != nullptr) std::fclose(file_);
    file_ = nullptr;
  }
  std::FILE* file() { return file_; }
  const std::string& path() const { return path_; }

 private:
  SpoolFile(std::string path, std::FILE* file) : path_(std::move(path)), file_(file) {}
  const std::string path_;
  std::FILE* file_;
};

Result<> create_with_schema(Service& service, const database::DatabaseName& name,
                            const database::CreateOptions& options, const std::string& schema) {
  OFFPRINT_TRY_ASSIGN(auto script, SpoolFile::create(service));
  OFFPRINT_TRY(script->write(schema));
  OFFPRINT_TRY(script->flush());
  std::rewind(script->file());
  OFFPRINT_TRY_ASSIGN(auto file, SpoolFile::create(service));
  file->close();
  OFFPRINT_TRY(database::load_script(script->file(), file->path(), options, {}));
  OFFPRINT_TRY(service.store.import_file(name, file->path(), options));
  return {};
}

}  // namespace

Result<> create_from_template(Service& service, const database::DatabaseName& name,
                              const database::CreateOptions& options,
                              const DatabaseTemplate& content) {
  if (service.store.info(name))
    return fail(Code::kConflict, fmt::format("database '{}' exists already", name.text()));
  if (content.from_archive) return service.create_from_archive(name);
  if (content.copy_of.empty()) return create_with_schema(service, name, options, content.schema);
  OFFPRINT_TRY_ASSIGN(auto source, database::DatabaseName::parse(content.copy_of));
  return fork_database(service, source, name, content.at);
}

Result<> fork_database(Service& service, const database::DatabaseName& from,
                       const database::DatabaseName& to,
                       const std::optional<database::Moment>& at) {
  if (service.store.info(to))
    return fail(Code::kConflict, fmt::format("database '{}' exists already", to.text()));
  OFFPRINT_TRY_ASSIGN(auto state,
                      at ? service.store.snapshot_at(from, *at) : service.store.snapshot(from));
  OFFPRINT_TRY_ASSIGN(auto parent, service.store.info(from));
  auto made = state->page_count() == 0 ? service.store.create(to, parent.options)
                                       : service.store.fork(from, to, *state);
  if (!made) return fail(std::move(made).error());
  return {};
}

}  // namespace offprint::server
