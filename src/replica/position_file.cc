#include "replica/position_file.h"

#include <algorithm>
#include <cerrno>

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/crc32c.h"

namespace offprint::replica {
namespace {

constexpr std::uint64_t kMagic = 0x4f46465052494e54;  // "OFFPRINT"
// In every version: the checksum is the last four bytes of the slot, over all before.
constexpr std::size_t kChecksumOffset = kNoteSlotSize - 4;
constexpr std::uint8_t kCleanFlag = 1;
constexpr std::uint8_t kExistedFlag = 2;
constexpr char kBootIdPath[] = "/proc/sys/kernel/random/boot_id";

std::array<std::uint8_t, 16> read_boot_id() {
  std::array<std::uint8_t, 16> id{};
  // Files of /proc say that they are empty: read without asking for the size.
  auto file = FileSystem::real().open(kBootIdPath, FileSystem::Mode::kRead);
  if (!file) return id;
  std::array<std::uint8_t, 64> text{};
  Result<std::size_t> size = (*file)->read_at(0, text);
  if (!size) return id;
  std::string digits;
  for (char letter : as_text(ByteView(text).first(*size))) {
    if (letter != '-' && letter != '\n') digits += letter;
  }
  if (auto raw = from_hex(digits); raw && raw->size() == id.size())
    std::copy(raw->begin(), raw->end(), id.begin());
  return id;
}

void append_point(Bytes& to, const ReplicaPoint& point) {
  append(to, point.position.lineage.bytes);
  append_be<std::uint32_t>(to, point.position.epoch.value);
  append_be<std::uint64_t>(to, point.position.txid.value);
  append_be<std::uint64_t>(to, point.position.checksum.value);
  append_be<std::uint32_t>(to, point.page_count);
  append_be<std::uint32_t>(to, point.cookie_offset);
  append_be<std::uint32_t>(to, point.cookie_highest);
  append(to, point.header);
}

// Takes fields off the front of a slot, whose size was checked.
class SlotReader {
 public:
  explicit SlotReader(ByteView rest) : rest_(rest) {}
  template <class T>
  T number() {
    T value = load_be<T>(rest_.data());
    rest_ = rest_.subspan(sizeof(T));
    return value;
  }
  template <std::size_t kSize>
  void bytes(std::array<std::uint8_t, kSize>& to) {
    std::copy_n(rest_.begin(), kSize, to.begin());
    rest_ = rest_.subspan(kSize);
  }
  ReplicaPoint point() {
    ReplicaPoint point;
    bytes(point.position.lineage.bytes);
    point.position.epoch.value = number<std::uint32_t>();
    point.position.txid.value = number<std::uint64_t>();
    point.position.checksum.value = number<std::uint64_t>();
    point.page_count = number<std::uint32_t>();
    point.cookie_offset = number<std::uint32_t>();
    point.cookie_highest = number<std::uint32_t>();
    bytes(point.header);
    return point;
  }
  ByteView rest() const { return rest_; }

 private:
  ByteView rest_;
};

// An flock on the file, given up with the object (and with the process).
class FileLock {
 public:
  static Result<std::unique_ptr<FileLock>> acquire(const std::string& path) {
    int descriptor = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
    if (descriptor < 0) return fail(io_error("open " + path, errno));
    auto lock = std::make_unique<FileLock>(descriptor);
    if (::flock(descriptor, LOCK_EX | LOCK_NB) == 0) return lock;
    if (errno == EWOULDBLOCK)
      return fail(Code::kBusy, "another program follows into this file: it holds " + path);
    return fail(io_error("lock " + path, errno));
  }
  explicit FileLock(int descriptor) : descriptor_(descriptor) {}
  ~FileLock() { ::close(descriptor_); }
  FileLock(const FileLock&) = delete;
  FileLock& operator=(const FileLock&) = delete;

 private:
  int descriptor_;
};

struct NewestNote {
  Note note;
  std::size_t slot = 0;
};

Result<NewestNote> newest_note(File& file, const std::string& path) {
  std::optional<NewestNote> best;
  for (std::size_t slot = 0; slot < 2; ++slot) {
    Bytes raw(kNoteSlotSize);
    OFFPRINT_TRY_ASSIGN(std::size_t got, file.read_at(slot * kNoteSlotSize, raw));
    Result<Note> note = decode_note(ByteView(raw).first(got));
    if (!note && note.error().code() == Code::kInvalid)
      return fail(note.error().with_context(path));
    if (note && (!best || note->sequence > best->note.sequence)) best = {*std::move(note), slot};
  }
  if (!best) return fail(Code::kCorrupt, path + " is damaged: it holds no whole note");
  return *std::move(best);
}

class PositionFileImpl final : public PositionFile {
 public:
  PositionFileImpl(std::unique_ptr<FileLock> lock, std::unique_ptr<File> file, Note latest,
                   std::size_t slot)
      : lock_(std::move(lock)), file_(std::move(file)), latest_(std::move(latest)), slot_(slot) {}

  const Note& latest() const override { return latest_; }

  Result<> write(Note note) override {
    note.sequence = latest_.sequence + 1;
    std::size_t slot = 1 - slot_;
    OFFPRINT_TRY(file_->write_at(slot * kNoteSlotSize, encode_note(note)));
    latest_ = std::move(note);
    slot_ = slot;
    return {};
  }

  Result<> write_durably(Note note) override {
    for (int i = 0; i < 2; ++i) {
      OFFPRINT_TRY(write(note));
      OFFPRINT_TRY(file_->sync());
    }
    return {};
  }

 private:
  std::unique_ptr<FileLock> lock_;
  std::unique_ptr<File> file_;
  Note latest_;
  std::size_t slot_;  // of latest_
};

}  // namespace

Bytes encode_note(const Note& note) {
  OFFPRINT_ASSERT(note.source.size() <= kSourceMax);
  Bytes slot;
  slot.reserve(kNoteSlotSize);
  append_be<std::uint64_t>(slot, kMagic);
  append_be<std::uint32_t>(slot, kNoteVersion);
  append_be<std::uint64_t>(slot, note.sequence);
  append_be<std::uint32_t>(slot, note.page_size);
  slot.push_back(static_cast<std::uint8_t>((note.clean ? kCleanFlag : 0) |
                                           (note.probe.existed ? kExistedFlag : 0)));
  append_be<std::uint32_t>(slot, note.probe.page);
  append_be<std::uint64_t>(slot, note.probe.before.value);
  append_be<std::uint64_t>(slot, note.probe.after.value);
  append(slot, note.boot_id);
  append_point(slot, note.before);
  append_point(slot, note.after);
  append_be<std::uint16_t>(slot, static_cast<std::uint16_t>(note.source.size()));
  append(slot, as_bytes(note.source));
  OFFPRINT_ASSERT(slot.size() <= kChecksumOffset);
  slot.resize(kChecksumOffset);
  append_be<std::uint32_t>(slot, crc32c(slot));
  return slot;
}

Result<Note> decode_note(ByteView slot) {
  if (slot.size() != kNoteSlotSize || load_be<std::uint64_t>(slot.data()) != kMagic ||
      load_be<std::uint32_t>(slot.data() + kChecksumOffset) !=
          crc32c(slot.first(kChecksumOffset))) {
    return fail(Code::kCorrupt, "no whole note");
  }
  SlotReader reader(slot.subspan(8));
  std::uint32_t version = reader.number<std::uint32_t>();
  if (version != kNoteVersion) {
    return fail(
        Code::kInvalid,
        fmt::format(
            "written by a newer version of offprint (note version {}, this program reads {})",
            version, kNoteVersion));
  }
  Note note;
  note.sequence = reader.number<std::uint64_t>();
  note.page_size = reader.number<std::uint32_t>();
  std::uint8_t flags = reader.number<std::uint8_t>();
  note.clean = (flags & kCleanFlag) != 0;
  note.probe.existed = (flags & kExistedFlag) != 0;
  note.probe.page = reader.number<std::uint32_t>();
  note.probe.before.value = reader.number<std::uint64_t>();
  note.probe.after.value = reader.number<std::uint64_t>();
  reader.bytes(note.boot_id);
  note.before = reader.point();
  note.after = reader.point();
  std::size_t length = reader.number<std::uint16_t>();
  bool size_valid = note.page_size >= 512 && note.page_size <= 65536 &&
                    (note.page_size & (note.page_size - 1)) == 0;
  if (!size_valid || length > kSourceMax)
    return fail(Code::kCorrupt, "a note with impossible fields");
  note.source = std::string(as_text(reader.rest().first(length)));
  return note;
}

void mask_probe(PageNo page, std::span<std::uint8_t> image) {
  if (page != 1) return;
  auto zero = [&](std::size_t begin, std::size_t end) {
    std::fill(image.begin() + static_cast<std::ptrdiff_t>(begin),
              image.begin() + static_cast<std::ptrdiff_t>(end), std::uint8_t{0});
  };
  zero(18, 20);   // journal mode
  zero(24, 28);   // change counter
  zero(40, 44);   // schema cookie
  zero(92, 100);  // change counter and SQLite's version
}

std::array<std::uint8_t, 16> current_boot_id() {
  static const std::array<std::uint8_t, 16> id = read_boot_id();
  return id;
}

Result<std::unique_ptr<PositionFile>> PositionFile::open(FileSystem& files,
                                                         const std::string& path) {
  OFFPRINT_TRY_ASSIGN(bool exists, files.exists(path));
  if (!exists) return fail(Code::kNotFound, path + " does not exist");
  OFFPRINT_TRY_ASSIGN(auto lock, FileLock::acquire(path));
  OFFPRINT_TRY_ASSIGN(auto file, files.open(path, FileSystem::Mode::kReadWrite));
  OFFPRINT_TRY_ASSIGN(NewestNote newest, newest_note(*file, path));
  return std::make_unique<PositionFileImpl>(std::move(lock), std::move(file),
                                            std::move(newest.note), newest.slot);
}

Result<Note> read_note(FileSystem& files, const std::string& path) {
  OFFPRINT_TRY_ASSIGN(bool exists, files.exists(path));
  if (!exists) return fail(Code::kNotFound, path + " does not exist");
  OFFPRINT_TRY_ASSIGN(auto file, files.open(path, FileSystem::Mode::kRead));
  OFFPRINT_TRY_ASSIGN(NewestNote newest, newest_note(*file, path));
  return std::move(newest.note);
}

Result<std::unique_ptr<PositionFile>> PositionFile::create(FileSystem& files,
                                                           const std::string& path,
                                                           const Note& note) {
  Note first = note;
  first.sequence = 1;
  Bytes content = encode_note(first);
  first.sequence = 2;
  append(content, encode_note(first));
  OFFPRINT_TRY(write_file_atomically(files, path, content));
  return open(files, path);
}

}  // namespace offprint::replica
