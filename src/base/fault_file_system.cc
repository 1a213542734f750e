#include "base/fault_file_system.h"

#include <algorithm>
#include <cerrno>
#include <random>
#include <set>

namespace offprint {
namespace {

constexpr std::uint64_t kSector = 512;

// "a//b/./c/" and "a/b/c" are one path; the root and "." are the empty one.
std::string normal(std::string_view path) {
  std::string result;
  while (!path.empty()) {
    std::size_t slash = path.find('/');
    std::string_view part = path.substr(0, slash);
    path = slash == std::string_view::npos ? std::string_view() : path.substr(slash + 1);
    if (part.empty() || part == ".") continue;
    if (!result.empty()) result += '/';
    result += part;
  }
  return result;
}

std::string parent_of(const std::string& path) {
  std::size_t slash = path.rfind('/');
  return slash == std::string::npos ? std::string() : path.substr(0, slash);
}

bool mutates(FaultFileSystem::Operation operation) {
  using enum FaultFileSystem::Operation;
  return operation != kOpen && operation != kRead && operation != kSize && operation != kExists &&
         operation != kList;
}

void write_into(Bytes& content, std::uint64_t offset, ByteView bytes) {
  if (bytes.empty()) return;
  if (content.size() < offset + bytes.size()) content.resize(offset + bytes.size());
  std::copy(bytes.begin(), bytes.end(), content.begin() + static_cast<std::ptrdiff_t>(offset));
}

}  // namespace

struct FaultFileSystem::Node {
  // Either a write or a new size.
  struct Change {
    std::uint64_t offset = 0;
    Bytes bytes;
    std::optional<std::uint64_t> new_size;

    void apply_to(Bytes& to) const {
      if (new_size) {
        to.resize(*new_size);
      } else {
        write_into(to, offset, bytes);
      }
    }
  };

  bool is_directory = false;
  int open_count = 0;
  std::int64_t modified_ms = 0;
  Bytes current;
  Bytes durable;
  std::vector<Change> unsynced;

  void change(Change what) {
    what.apply_to(current);
    unsynced.push_back(std::move(what));
  }
  void sync() {
    for (const Change& what : unsynced) what.apply_to(durable);
    unsynced.clear();
  }
  void power_loss(std::mt19937_64& dice) {
    std::uint64_t keep_of_8 = dice() % 9;  // from nothing to all, else a mixture
    for (Change& what : unsynced) {
      if (what.new_size) {
        if (dice() % 8 < keep_of_8) what.apply_to(durable);
        continue;
      }
      for (std::uint64_t at = 0; at < what.bytes.size();) {
        std::uint64_t size =
            std::min(kSector - (what.offset + at) % kSector, what.bytes.size() - at);
        if (dice() % 8 < keep_of_8) {
          std::uint64_t kept = dice() % 16 == 0 ? dice() % (size + 1) : size;
          write_into(durable, what.offset + at, ByteView(what.bytes).subspan(at, kept));
        }
        at += size;
      }
    }
    unsynced.clear();
    current = durable;
  }
};

struct FaultFileSystem::NameChange {
  std::string path;
  std::shared_ptr<Node> made;  // a creation
  std::string renamed_to;      // a rename; neither: a removal

  bool touches(const std::string& directory) const {
    return parent_of(path) == directory ||
           (!renamed_to.empty() && parent_of(renamed_to) == directory);
  }
};

class FaultFileSystem::OpenFile final : public File {
 public:
  OpenFile(FaultFileSystem& system, std::shared_ptr<Node> node, std::string path, bool writable,
           std::uint64_t generation)
      : system_(system),
        node_(std::move(node)),
        path_(std::move(path)),
        writable_(writable),
        generation_(generation) {
    ++node_->open_count;  // the system's mutex is held by open()
  }
  ~OpenFile() override {
    std::lock_guard lock(system_.mutex_);
    --node_->open_count;
  }
  OpenFile(const OpenFile&) = delete;
  OpenFile& operator=(const OpenFile&) = delete;

  Result<std::size_t> read_at(std::uint64_t offset, std::span<std::uint8_t> to) override {
    int error = system_.enter(Operation::kRead, path_, offset, to.size());
    std::lock_guard lock(system_.mutex_);
    OFFPRINT_TRY(alive("read", error));
    if (offset >= node_->current.size()) return std::size_t{0};
    std::size_t size = std::min<std::size_t>(to.size(), node_->current.size() - offset);
    std::copy_n(node_->current.begin() + static_cast<std::ptrdiff_t>(offset), size, to.begin());
    return size;
  }

  Result<> write_at(std::uint64_t offset, ByteView bytes) override {
    int error = system_.enter(Operation::kWrite, path_, offset, bytes.size());
    std::lock_guard lock(system_.mutex_);
    if (generation_ != system_.generation_) return dead("write");
    if (!writable_) return offprint::fail(io_error("write " + path_, EBADF));
    if (error == 0 && !system_.room_for(*node_, offset + bytes.size())) error = ENOSPC;
    if (error != 0) {
      // A failed write may have written some of it.
      ByteView part = bytes.first(bytes.size() / 2);
      if (!part.empty() && system_.room_for(*node_, offset + part.size())) {
        node_->change({offset, Bytes(part.begin(), part.end()), std::nullopt});
      }
      return offprint::fail(io_error("write " + path_, error));
    }
    node_->change({offset, Bytes(bytes.begin(), bytes.end()), std::nullopt});
    return {};
  }

  Result<> sync() override {
    int error = system_.enter(Operation::kSync, path_);
    std::lock_guard lock(system_.mutex_);
    if (generation_ != system_.generation_) return dead("fdatasync");
    if (error != 0) {
      // As Linux does: the pages stay readable and count as clean, so no later sync will ever write
      // them.
      node_->unsynced.clear();
      return offprint::fail(io_error("fdatasync " + path_, error));
    }
    if (!system_.ignores_sync(path_)) node_->sync();
    return {};
  }

  Result<std::uint64_t> size() override {
    int error = system_.enter(Operation::kSize, path_);
    std::lock_guard lock(system_.mutex_);
    OFFPRINT_TRY(alive("stat", error));
    return std::uint64_t{node_->current.size()};
  }

  Result<> truncate(std::uint64_t size) override {
    int error = system_.enter(Operation::kTruncate, path_, 0, size);
    return resize("truncate", size, error);
  }

  Result<> allocate(std::uint64_t size) override {
    int error = system_.enter(Operation::kAllocate, path_, 0, size);
    std::uint64_t now = 0;
    {
      std::lock_guard lock(system_.mutex_);
      now = node_->current.size();
    }
    return resize("allocate", std::max(size, now), error);
  }

 private:
  Result<> resize(const char* what, std::uint64_t size, int error) {
    std::lock_guard lock(system_.mutex_);
    OFFPRINT_TRY(alive(what, error));
    if (!writable_) return offprint::fail(io_error(std::string(what) + " " + path_, EBADF));
    if (!system_.room_for(*node_, size))
      return offprint::fail(io_error(std::string(what) + " " + path_, ENOSPC));
    if (size != node_->current.size()) node_->change({0, {}, size});
    return {};
  }
  Result<> alive(const char* what, int error) const {
    if (generation_ != system_.generation_) return dead(what);
    if (error != 0) return offprint::fail(io_error(std::string(what) + " " + path_, error));
    return {};
  }
  std::unexpected<Error> dead(const char* what) const {
    return offprint::fail(Code::kIo,
                          std::string(what) + " " + path_ + ": the machine that opened it is gone");
  }

  FaultFileSystem& system_;
  std::shared_ptr<Node> node_;
  std::string path_;
  bool writable_;
  std::uint64_t generation_;
};

FaultFileSystem::FaultFileSystem() = default;
FaultFileSystem::~FaultFileSystem() = default;

const char* FaultFileSystem::operation_name(Operation operation) {
  switch (operation) {
    case Operation::kOpen:
      return "open";
    case Operation::kRead:
      return "read";
    case Operation::kWrite:
      return "write";
    case Operation::kSync:
      return "sync";
    case Operation::kSize:
      return "size";
    case Operation::kTruncate:
      return "truncate";
    case Operation::kAllocate:
      return "allocate";
    case Operation::kRename:
      return "rename";
    case Operation::kRemove:
      return "remove";
    case Operation::kExists:
      return "exists";
    case Operation::kSetModified:
      return "set the time";
    case Operation::kList:
      return "list";
    case Operation::kMakeDirectory:
      return "create directories";
    case Operation::kSyncDirectory:
      return "sync directory";
  }
  return "?";
}

void FaultFileSystem::set_hook(Hook hook) {
  std::lock_guard lock(mutex_);
  hook_ = std::move(hook);
}

void FaultFileSystem::fail_mutation(std::uint64_t n, int error_number) {
  std::lock_guard lock(mutex_);
  planned_.push_back({std::nullopt, n, error_number});
}

void FaultFileSystem::fail(Operation operation, std::uint64_t n, int error_number) {
  std::lock_guard lock(mutex_);
  planned_.push_back({operation, n, error_number});
}

void FaultFileSystem::set_capacity(std::uint64_t bytes) {
  std::lock_guard lock(mutex_);
  capacity_ = bytes;
}

void FaultFileSystem::ignore_syncs(const std::string& part_of_path) {
  std::lock_guard lock(mutex_);
  unsynced_part_ = part_of_path;
}

int FaultFileSystem::enter(Operation operation, const std::string& path, std::uint64_t offset,
                           std::uint64_t size) {
  Hook hook;
  Call call{operation, path, offset, size, 0};
  int error = 0;
  {
    std::lock_guard lock(mutex_);
    if (planned_crash_ && calls_ >= planned_crash_->number) {
      if (planned_crash_->power_loss_seed) lose_unsynced(*planned_crash_->power_loss_seed);
      ++generation_;
      planned_crash_.reset();
      down_ = true;
    }
    call.number = calls_++;
    if (down_) return EIO;
    ++calls_by_operation_[operation];
    for (auto plan = planned_.begin(); plan != planned_.end();) {
      bool matches = plan->operation ? *plan->operation == operation : mutates(operation);
      if (!matches || plan->left-- > 0) {
        ++plan;
        continue;
      }
      error = plan->error_number;
      plan = planned_.erase(plan);
    }
    hook = hook_;
  }
  if (hook) {
    int asked = hook(call);
    if (asked != 0) error = asked;
  }
  return error;
}

void FaultFileSystem::power_loss(std::uint64_t seed) {
  std::lock_guard lock(mutex_);
  lose_unsynced(seed);
}

void FaultFileSystem::crash_at(std::uint64_t number, std::optional<std::uint64_t> power_loss_seed) {
  std::lock_guard lock(mutex_);
  planned_crash_ = PlannedCrash{number, power_loss_seed};
}

void FaultFileSystem::restart() {
  std::lock_guard lock(mutex_);
  planned_crash_.reset();
  down_ = false;
}

void FaultFileSystem::lose_unsynced(std::uint64_t seed) {
  std::mt19937_64 dice(seed);
  ++generation_;
  std::uint64_t keep_of_4 = dice() % 5;
  for (const NameChange& change : name_changes_) {
    if (dice() % 4 < keep_of_4) apply(change, durable_names_);
  }
  name_changes_.clear();
  // A file whose folder is gone is gone.
  for (auto name = durable_names_.begin(); name != durable_names_.end();) {
    std::string folder = parent_of(name->first);
    bool kept = folder.empty() || durable_names_.contains(folder);
    name = kept ? std::next(name) : durable_names_.erase(name);
  }
  names_ = durable_names_;
  for (const auto& weak : nodes_) {
    if (auto node = weak.lock()) node->power_loss(dice);
  }
}

void FaultFileSystem::process_crash() {
  std::lock_guard lock(mutex_);
  ++generation_;
}

std::uint64_t FaultFileSystem::call_count() const {
  std::lock_guard lock(mutex_);
  return calls_;
}

std::uint64_t FaultFileSystem::call_count(Operation operation) const {
  std::lock_guard lock(mutex_);
  auto found = calls_by_operation_.find(operation);
  return found == calls_by_operation_.end() ? 0 : found->second;
}

std::uint64_t FaultFileSystem::used_bytes() const {
  std::lock_guard lock(mutex_);
  return used_locked();
}

std::uint64_t FaultFileSystem::used_locked() const {
  std::set<const Node*> named;
  for (const auto& [path, node] : names_) named.insert(node.get());
  std::uint64_t used = 0;
  for (const auto& weak : nodes_) {
    auto node = weak.lock();
    if (node && (node->open_count > 0 || named.contains(node.get()))) used += node->current.size();
  }
  return used;
}

bool FaultFileSystem::room_for(const Node& node, std::uint64_t size) const {
  if (size <= node.current.size() || capacity_ == UINT64_MAX) return true;
  return used_locked() + (size - node.current.size()) <= capacity_;
}

void FaultFileSystem::corrupt(const std::string& path, std::uint64_t offset,
                              std::uint8_t xor_with) {
  std::lock_guard lock(mutex_);
  auto node = find(normal(path));
  if (!node) return;
  if (offset < node->current.size()) node->current[offset] ^= xor_with;
  if (offset < node->durable.size()) node->durable[offset] ^= xor_with;
}

Bytes FaultFileSystem::content(const std::string& path) const {
  std::lock_guard lock(mutex_);
  auto node = find(normal(path));
  return node ? node->current : Bytes();
}

void FaultFileSystem::put(const std::string& path, ByteView content) {
  std::lock_guard lock(mutex_);
  std::string name = normal(path);
  for (std::string folder = parent_of(name); !folder.empty(); folder = parent_of(folder)) {
    if (names_.contains(folder)) continue;
    auto node = std::make_shared<Node>();
    node->is_directory = true;
    names_[folder] = durable_names_[folder] = node;
  }
  auto node = std::make_shared<Node>();
  node->current.assign(content.begin(), content.end());
  node->durable = node->current;
  nodes_.push_back(node);
  names_[name] = durable_names_[name] = node;
}

std::unique_ptr<FaultFileSystem> FaultFileSystem::clone() const {
  std::lock_guard lock(mutex_);
  auto copy = std::make_unique<FaultFileSystem>();
  std::map<const Node*, std::shared_ptr<Node>> copies;
  auto copy_of = [&](const std::shared_ptr<Node>& node) -> std::shared_ptr<Node> {
    if (!node) return nullptr;
    std::shared_ptr<Node>& result = copies[node.get()];
    if (!result) {
      result = std::make_shared<Node>(*node);
      result->open_count = 0;
      if (!node->is_directory) copy->nodes_.push_back(result);
    }
    return result;
  };
  for (const auto& [path, node] : names_) copy->names_[path] = copy_of(node);
  for (const auto& [path, node] : durable_names_) copy->durable_names_[path] = copy_of(node);
  for (const NameChange& change : name_changes_) {
    copy->name_changes_.push_back({change.path, copy_of(change.made), change.renamed_to});
  }
  copy->capacity_ = capacity_;
  return copy;
}

std::shared_ptr<FaultFileSystem::Node> FaultFileSystem::find(const std::string& path) const {
  auto found = names_.find(path);
  return found == names_.end() ? nullptr : found->second;
}

void FaultFileSystem::apply(const NameChange& change, Names& names) {
  if (change.made) {
    names[change.path] = change.made;
    return;
  }
  auto found = names.find(change.path);
  if (found == names.end()) return;
  std::shared_ptr<Node> node = found->second;
  names.erase(found);
  if (!change.renamed_to.empty()) names[change.renamed_to] = std::move(node);
}

void FaultFileSystem::change_names(NameChange change) {
  apply(change, names_);
  name_changes_.push_back(std::move(change));
}

Result<std::unique_ptr<File>> FaultFileSystem::open(const std::string& path, Mode mode) {
  std::string name = normal(path);
  int error = enter(Operation::kOpen, name);
  std::lock_guard lock(mutex_);
  if (error != 0) return offprint::fail(io_error("open " + name, error));
  auto node = find(name);
  if (!node) {
    if (mode == Mode::kRead || mode == Mode::kReadWrite)
      return offprint::fail(io_error("open " + name, ENOENT));
    std::string folder = parent_of(name);
    auto above = find(folder);
    if (!folder.empty() && (!above || !above->is_directory))
      return offprint::fail(io_error("open " + name, ENOENT));
    node = std::make_shared<Node>();
    std::erase_if(nodes_, [](const auto& weak) { return weak.expired(); });
    nodes_.push_back(node);
    change_names({name, node, {}});
  } else if (mode == Mode::kCreateNew) {
    return offprint::fail(io_error("open " + name, EEXIST));
  } else if (node->is_directory) {
    return offprint::fail(io_error("open " + name, EISDIR));
  }
  return std::make_unique<OpenFile>(*this, std::move(node), name, mode != Mode::kRead, generation_);
}

Result<> FaultFileSystem::rename(const std::string& from, const std::string& to) {
  std::string source = normal(from);
  std::string target = normal(to);
  int error = enter(Operation::kRename, source);
  std::lock_guard lock(mutex_);
  if (error == 0 && !find(source)) error = ENOENT;
  if (error != 0) return offprint::fail(io_error("rename " + source + " to " + target, error));
  if (source != target) change_names({source, nullptr, target});
  return {};
}

Result<> FaultFileSystem::rename_new(const std::string& from, const std::string& to) {
  OFFPRINT_TRY_ASSIGN(bool there, exists(to));
  if (there) return offprint::fail(Code::kConflict, to + " is there already");
  return rename(from, to);
}

Result<> FaultFileSystem::remove(const std::string& path) {
  std::string name = normal(path);
  int error = enter(Operation::kRemove, name);
  std::lock_guard lock(mutex_);
  if (error != 0) return offprint::fail(io_error("remove " + name, error));
  if (find(name)) change_names({name, nullptr, {}});
  return {};
}

Result<bool> FaultFileSystem::exists(const std::string& path) {
  std::string name = normal(path);
  int error = enter(Operation::kExists, name);
  std::lock_guard lock(mutex_);
  if (error != 0) return offprint::fail(io_error("stat " + name, error));
  return name.empty() || find(name) != nullptr;
}

Result<std::optional<FileStatus>> FaultFileSystem::status(const std::string& path) {
  std::string name = normal(path);
  int error = enter(Operation::kExists, name);
  std::lock_guard lock(mutex_);
  if (error != 0) return offprint::fail(io_error("stat " + name, error));
  std::shared_ptr<Node> node = find(name);
  FileStatus status;
  status.is_directory = name.empty() || (node && node->is_directory);
  if (!node && !name.empty()) return std::optional<FileStatus>();
  if (node) {
    status.size = node->current.size();
    status.modified_ms = node->modified_ms;
    status.inode = reinterpret_cast<std::uintptr_t>(node.get());
  }
  return status;
}

Result<> FaultFileSystem::set_modified(const std::string& path, std::int64_t modified_ms) {
  std::string name = normal(path);
  int error = enter(Operation::kSetModified, name);
  std::lock_guard lock(mutex_);
  std::shared_ptr<Node> node = find(name);
  if (error == 0 && !node) error = ENOENT;
  if (error != 0) return offprint::fail(io_error("set the time of " + name, error));
  node->modified_ms = modified_ms;
  return {};
}

Result<std::vector<std::string>> FaultFileSystem::list(const std::string& directory) {
  std::string folder = normal(directory);
  int error = enter(Operation::kList, folder);
  std::lock_guard lock(mutex_);
  if (error == 0 && !folder.empty() && !find(folder)) error = ENOENT;
  if (error != 0) return offprint::fail(io_error("list " + folder, error));
  std::vector<std::string> result;
  for (const auto& [path, node] : names_) {
    if (parent_of(path) == folder)
      result.push_back(folder.empty() ? path : path.substr(folder.size() + 1));
  }
  std::sort(result.begin(), result.end());
  return result;
}

Result<> FaultFileSystem::create_directories(const std::string& directory) {
  std::string folder = normal(directory);
  int error = enter(Operation::kMakeDirectory, folder);
  std::lock_guard lock(mutex_);
  if (error != 0) return offprint::fail(io_error("create " + folder, error));
  std::vector<std::string> missing;
  for (; !folder.empty() && !find(folder); folder = parent_of(folder)) missing.push_back(folder);
  for (auto path = missing.rbegin(); path != missing.rend(); ++path) {
    auto node = std::make_shared<Node>();
    node->is_directory = true;
    change_names({*path, std::move(node), {}});
  }
  return {};
}

Result<> FaultFileSystem::sync_directory(const std::string& directory) {
  std::string folder = normal(directory);
  int error = enter(Operation::kSyncDirectory, folder);
  std::lock_guard lock(mutex_);
  if (error == 0 && !folder.empty() && !find(folder)) error = ENOENT;
  if (error != 0) return offprint::fail(io_error("fsync " + folder, error));
  std::vector<NameChange> left;
  for (NameChange& change : name_changes_) {
    if (change.touches(folder)) {
      apply(change, durable_names_);
    } else {
      left.push_back(std::move(change));
    }
  }
  name_changes_ = std::move(left);
  return {};
}

}  // namespace offprint
