#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "archive/object_store.h"
#include "base/file_system.h"
#include "database/store.h"

namespace offprint::archive {

// A database file that was fetched; it is removed with this.
class FetchedDatabase {
 public:
  FetchedDatabase(FileSystem& files, std::string path) : files_(files), path_(std::move(path)) {}
  ~FetchedDatabase();
  FetchedDatabase(const FetchedDatabase&) = delete;
  FetchedDatabase& operator=(const FetchedDatabase&) = delete;

  const std::string& path() const { return path_; }
  // Its pages with that page size, in WAL mode, with their checksum and no history. Blocks.
  // kInvalid: it is no sound SQLite database.
  Result<std::unique_ptr<database::Snapshot>> state(std::uint32_t page_size);

 private:
  FileSystem& files_;
  const std::string path_;
};

// Database files as objects that are named by their URLs, in folders and buckets that the server's
// operator allows: HA SNAPSHOT writes them, HA RESTORE reads them. Thread: any; calls block.
class NamedObjects {
 public:
  // `urls`: as of archives; objects are below them. `scratch`: a folder for what is fetched; it may
  // have to be made. kInvalid: no such URL.
  static Result<std::unique_ptr<NamedObjects>> open(const std::vector<std::string>& urls,
                                                    std::string scratch);

  static bool is_url(std::string_view text) { return text.find("://") != text.npos; }

  // A file that stock SQLite opens; one that is there is replaced. Errors: kForbidden the URL is
  // not below one of the server's; kInvalid it names no object; and the store's.
  Result<> put(const std::string& url, database::Snapshot& state);
  // The same errors; kNotFound.
  Result<std::unique_ptr<FetchedDatabase>> get(const std::string& url);
  // Calls that run and calls to come end soon.
  void cancel();

 private:
  struct Place {
    std::string url;  // ends with a slash
    std::unique_ptr<ObjectStore> store;
  };
  struct Found {
    ObjectStore* store;
    std::string key;
  };
  explicit NamedObjects(std::string scratch) : scratch_(std::move(scratch)) {}
  Result<Found> find(const std::string& url) const;

  const std::string scratch_;
  std::vector<Place> places_;
};

}  // namespace offprint::archive
