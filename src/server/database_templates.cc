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

Result<> create_copy(Service& service, const database::DatabaseName& name,
                     const std::string& source_text) {
  OFFPRINT_TRY_ASSIGN(auto source, database::DatabaseName::parse(source_text));
  OFFPRINT_TRY_ASSIGN(auto info, service.store.info(source));
  OFFPRINT_TRY_ASSIGN(auto file, SpoolFile::create(service));
  {
    OFFPRINT_TRY_ASSIGN(auto snapshot, service.store.snapshot(source));
    if (snapshot->page_count() == 0) {
      OFFPRINT_TRY(service.store.create(name, info.options));
      return {};
    }
    for (PageNo page = 1; page <= snapshot->page_count(); ++page) {
      OFFPRINT_TRY_ASSIGN(ByteView image, snapshot->page(page));
      OFFPRINT_TRY(file->write(as_text(image)));
    }
  }
  OFFPRINT_TRY(file->flush());
  file->close();
  OFFPRINT_TRY(service.store.import_file(name, file->path(), info.options));
  return {};
}

}  // namespace

Result<> create_from_template(Service& service, const database::DatabaseName& name,
                              const database::CreateOptions& options,
                              const DatabaseTemplate& content) {
  if (service.store.info(name))
    return fail(Code::kConflict, fmt::format("database '{}' exists already", name.text()));
  if (content.from_archive) return service.create_from_archive(name);
  if (!content.copy_of.empty()) return create_copy(service, name, content.copy_of);
  return create_with_schema(service, name, options, content.schema);
}

}  // namespace offprint::server
