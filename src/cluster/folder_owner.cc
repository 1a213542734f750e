#include "cluster/folder_owner.h"

#include <array>
#include <charconv>

#include <fmt/format.h>

#include "base/bytes.h"
#include "base/random.h"
#include "database/folder_fill.h"

namespace offprint::cluster {
namespace {

constexpr std::string_view kHead = "offprint-node 1\n";
constexpr std::string_view kBegins = "begins ";
constexpr std::string_view kLeaves = "leaves";

std::string path_in(const std::string& data) { return data + "/" + database::FolderFill::kMark; }

// CLUSTER NODE@LOGID[ begins EPOCH| leaves]
std::optional<FolderOwner> parse(std::string_view line) {
  const std::size_t space = line.find(' ');
  if (space == std::string_view::npos) return std::nullopt;
  FolderOwner owner;
  owner.cluster = line.substr(0, space);
  std::string_view rest = line.substr(space + 1);
  const std::size_t end = rest.find(' ');
  auto member = RecordMember::parse(rest.substr(0, end));
  if (!member) return std::nullopt;
  owner.member = *member;
  if (end == std::string_view::npos) return owner;
  rest = rest.substr(end + 1);
  owner.leaves = rest == kLeaves;
  if (owner.leaves) return owner;
  if (!rest.starts_with(kBegins)) return std::nullopt;
  rest.remove_prefix(kBegins.size());
  Epoch epoch;
  auto [last, error] = std::from_chars(rest.data(), rest.data() + rest.size(), epoch.value);
  if (error != std::errc() || last != rest.data() + rest.size()) return std::nullopt;
  owner.begins = epoch;
  return owner;
}

}  // namespace

FolderOwner FolderOwner::make(const std::string& cluster, const std::string& node) {
  FolderOwner owner{cluster, {node, 0}};
  while (owner.member.log_id == 0) {
    std::array<std::uint8_t, 8> bytes{};
    fill_random(bytes);
    owner.member.log_id = load_be<std::uint64_t>(bytes.data());
  }
  return owner;
}

Result<std::optional<FolderOwner>> FolderOwner::read(FileSystem& files, const std::string& data) {
  const std::string path = path_in(data);
  OFFPRINT_TRY_ASSIGN(bool is_there, files.exists(path));
  if (!is_there) return std::nullopt;
  OFFPRINT_TRY_ASSIGN(Bytes bytes, read_file(files, path, 4096));
  std::string_view text = as_text(bytes);
  if (!text.starts_with(kHead))
    return fail(Code::kInvalid, path + " was written by a newer version");
  text.remove_prefix(kHead.size());
  auto owner = parse(text.substr(0, text.find('\n')));
  if (!owner) return fail(Code::kCorrupt, path + " is damaged");
  return owner;
}

std::string FolderOwner::text() const {
  std::string text = fmt::format("{}{} {}", kHead, cluster, member.text());
  if (leaves) return fmt::format("{} {}\n", text, kLeaves);
  if (begins) text += fmt::format(" {}{}", kBegins, begins->value);
  return text + "\n";
}

Result<> FolderOwner::write(FileSystem& files, const std::string& data) const {
  return write_file_atomically(files, path_in(data), as_bytes(text()));
}

Result<std::unique_ptr<journal::Journal>> open_journal(FileSystem& files, const std::string& data,
                                                       const journal::Journal::Visitor& visitor) {
  return journal::Journal::open(files, data + "/journal", {}, visitor);
}

Result<> FolderOwner::remove(FileSystem& files, const std::string& data) {
  OFFPRINT_TRY(files.remove(path_in(data)));
  return files.sync_directory(data);
}

}  // namespace offprint::cluster
