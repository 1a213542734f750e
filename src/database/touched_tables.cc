#include "database/touched_tables.h"

#include <algorithm>
#include <set>

#include "sqlite/connection.h"
#include "sqlite/page_database.h"

namespace offprint::database {
namespace {

constexpr std::size_t kFileHeaderSize = 100;  // before the b-tree of page 1
constexpr std::uint8_t kInteriorIndex = 2, kInteriorTable = 5;
constexpr std::size_t kInteriorHeaderSize = 12;
constexpr int kDepthMax = 20;  // SQLite's own

// The children of an interior page, as far as it is one and sound.
std::vector<PageNo> children_of(ByteView page, PageNo number) {
  const std::size_t begin = number == 1 ? kFileHeaderSize : 0;
  std::vector<PageNo> children;
  if (page.size() < begin + kInteriorHeaderSize) return children;
  const std::uint8_t* header = page.data() + begin;
  if (header[0] != kInteriorIndex && header[0] != kInteriorTable) return children;
  const std::size_t cells = load_be<std::uint16_t>(header + 3);
  for (std::size_t i = 0; i < cells; ++i) {
    const std::size_t place = begin + kInteriorHeaderSize + 2 * i;
    if (place + 2 > page.size()) return children;
    const std::size_t cell = load_be<std::uint16_t>(page.data() + place);
    if (cell + 4 > page.size()) return children;
    children.push_back(load_be<std::uint32_t>(page.data() + cell));
  }
  children.push_back(load_be<std::uint32_t>(header + 8));
  return children;
}

class Search {
 public:
  Search(Snapshot& state, std::set<PageNo> wanted) : state_(state), wanted_(std::move(wanted)) {}

  // Whether the b-tree has one of the pages.
  Result<bool> is_touched(PageNo root) {
    if (wanted_.contains(root)) return true;
    // All leaves are equally deep: which pages are leaves is told without reading them.
    int depth = 0;
    for (PageNo page = root; depth < kDepthMax; ++depth) {
      OFFPRINT_TRY_ASSIGN(auto children, children(page));
      if (children.empty()) break;
      page = children.front();
    }
    return has_wanted(root, depth);
  }

 private:
  Result<std::vector<PageNo>> children(PageNo page) {
    if (page == 0 || page > state_.page_count()) return std::vector<PageNo>();
    OFFPRINT_TRY_ASSIGN(ByteView image, state_.page(page));
    return children_of(image, page);
  }
  Result<bool> has_wanted(PageNo page, int depth) {
    if (depth == 0) return false;
    OFFPRINT_TRY_ASSIGN(auto below, children(page));
    for (PageNo child : below) {
      if (wanted_.contains(child)) return true;
    }
    for (PageNo child : below) {
      if (depth == 1) break;
      OFFPRINT_TRY_ASSIGN(bool found, has_wanted(child, depth - 1));
      if (found) return true;
    }
    return false;
  }

  Snapshot& state_;
  const std::set<PageNo> wanted_;
};

}  // namespace

Result<std::vector<std::string>> touched_tables(Snapshot& state, const std::vector<PageNo>& pages) {
  sqlite::PageDatabase::Content content;
  content.page_size = state.page_size();
  content.page_count = state.page_count();
  content.read = [&](std::uint32_t page) { return state.page(page); };
  std::vector<std::pair<std::string, PageNo>> roots;
  {
    sqlite::PageDatabase readable(std::move(content));
    sqlite::Connection::Options options;
    options.vfs = readable.vfs();
    OFFPRINT_TRY_ASSIGN(auto connection, sqlite::Connection::open(readable.path(), options));
    OFFPRINT_TRY_ASSIGN(
        auto select,
        connection.prepare("SELECT tbl_name, rootpage FROM sqlite_schema WHERE rootpage > 0"));
    for (;;) {
      OFFPRINT_TRY_ASSIGN(bool found, select.step());
      if (!found) break;
      roots.emplace_back(select.column_text(0), static_cast<PageNo>(select.column_int(1)));
    }
  }
  Search search(state, {pages.begin(), pages.end()});
  std::set<std::string> names;
  for (const auto& [name, root] : roots) {
    if (names.contains(name)) continue;
    OFFPRINT_TRY_ASSIGN(bool touched, search.is_touched(root));
    if (touched) names.insert(name);
  }
  return std::vector<std::string>(names.begin(), names.end());
}

}  // namespace offprint::database
