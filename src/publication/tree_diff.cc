// A page p of the map's tree is an *anchor* when it was written and none of its ancestors was: it
// stands at the same place in both states, and all that changed is below anchors. From there the
// tree is walked in both states, into each page that was written or leads to one that was; all
// other children are subtrees that are the same in both states, unless the other state does not
// have them there.
#include "publication/tree_diff.h"

#include <algorithm>
#include <map>
#include <span>
#include <string_view>

#include <fmt/format.h>

#include "publication/seeded_bug.h"

#include "sqlite/btree_page.h"

namespace offprint::publication {
namespace {

using sqlite::BtreePage;

constexpr std::size_t kPagesMax = std::size_t{1} << 32;  // SQLite's own limit

std::unexpected<Error> misfit(const char* what, PageNo page) {
  return fail(Code::kCorrupt, fmt::format("the map of a table's pages: {} (page {})", what, page));
}

Result<std::vector<PageNo>> children_of(const BtreePage& page) {
  std::vector<PageNo> children;
  if (page.is_leaf()) return children;
  children.reserve(page.cell_count() + 1);
  for (std::size_t i = 0; i < page.cell_count(); ++i) {
    OFFPRINT_TRY_ASSIGN(auto cell, page.cell(i));
    children.push_back(cell.child);
  }
  children.push_back(page.last_child());
  return children;
}

}  // namespace

// A walk through the tree of one state, from the top down.
class TreeMap::Walk {
 public:
  using Enters = std::function<bool(PageNo)>;
  Walk(const PageSource& state, std::uint32_t usable) : state_(state), usable_(usable) {}

  // Visits a page, and below it all pages that `enters` says yes to.
  Result<> visit(PageNo from, PageNo parent, const Enters& enters) {
    std::vector<std::pair<PageNo, PageNo>> waiting{{from, parent}};
    while (!waiting.empty()) {
      auto [page, above] = waiting.back();
      waiting.pop_back();
      OFFPRINT_TRY_ASSIGN(auto children, visit_one(page, above));
      for (PageNo child : children) {
        if (enters(child))
          waiting.emplace_back(child, page);
        else if (!whole_.emplace(child, page).second)
          return misfit("a page has two parents", child);
      }
    }
    return {};
  }
  // Takes a subtree apart: its page was visited then, its children are subtrees. False: a leaf.
  Result<bool> open(PageNo subtree) {
    const PageNo above = whole_.at(subtree);
    whole_.erase(subtree);
    OFFPRINT_TRY_ASSIGN(auto children, visit_one(subtree, above));
    for (PageNo child : children) {
      if (!whole_.emplace(child, subtree).second) return misfit("a page has two parents", child);
    }
    return !children.empty();
  }

  const std::vector<PageNo>& visited() const { return visited_; }
  // Parents of all pages visited.
  const std::unordered_map<PageNo, PageNo>& parents() const { return parents_; }
  // Subtrees that were not entered, and their parents.
  const std::unordered_map<PageNo, PageNo>& whole() const { return whole_; }

 private:
  Result<std::vector<PageNo>> visit_one(PageNo page, PageNo above) {
    if (page == 0 || parents_.size() >= kPagesMax || !parents_.emplace(page, above).second)
      return misfit("it goes in a circle", page);
    visited_.push_back(page);
    OFFPRINT_TRY_ASSIGN(ByteView image, state_(page));
    OFFPRINT_TRY_ASSIGN(auto parsed, BtreePage::parse(image, page, usable_));
    return children_of(parsed);
  }

  const PageSource& state_;
  const std::uint32_t usable_;
  std::vector<PageNo> visited_;
  std::unordered_map<PageNo, PageNo> parents_, whole_;
};

// The rows of some pages.
class TreeMap::Rows {
 public:
  struct Row {
    Bytes content;  // its part in the page, or of a table without rowids all of it
    std::uint64_t size = 0;
    PageNo overflow = 0;
    bool is_overflow_changed = false;
    bool operator==(const Row& other) const {
      return content == other.content && size == other.size && overflow == other.overflow;
    }
  };

  Rows(const PageSource& state, std::uint32_t usable, const PageSet* changed)
      : state_(state), usable_(usable), changed_(changed) {}

  Result<> read(PageNo number) {
    OFFPRINT_TRY_ASSIGN(ByteView there, state_(number));
    image_.assign(there.begin(), there.end());  // chains are read from the same source
    OFFPRINT_TRY_ASSIGN(auto page, BtreePage::parse(image_, number, usable_));
    if (page.kind() == BtreePage::Kind::kInteriorTable) return {};
    for (std::size_t i = 0; i < page.cell_count(); ++i) {
      OFFPRINT_TRY_ASSIGN(auto cell, page.cell(i));
      OFFPRINT_TRY(add(number, page.is_table(), cell));
    }
    return {};
  }

  std::unordered_map<std::int64_t, Row>& by_rowid() { return by_rowid_; }
  std::map<Bytes, Row>& by_record() { return by_record_; }
  // Overflow pages by the page that leads to them.
  const std::unordered_map<PageNo, std::vector<PageNo>>& overflow() const { return overflow_; }

 private:
  Result<> add(PageNo number, bool is_table, const BtreePage::Cell& cell) {
    Row row{Bytes(cell.payload.begin(), cell.payload.end()), cell.payload_size, cell.overflow};
    if (cell.overflow != 0) OFFPRINT_TRY(follow(number, !is_table, cell, row));
    if (is_table) {
      if (!by_rowid_.emplace(cell.rowid, std::move(row)).second)
        return misfit("a row is there twice", number);
    } else {
      Bytes key = row.content;
      by_record_.emplace(std::move(key), std::move(row));
    }
    return {};
  }

  // Follows a chain of overflow pages, for its content when that is wanted.
  Result<> follow(PageNo number, bool wants_content, const BtreePage::Cell& cell, Row& row) {
    const std::size_t each = usable_ - 4;
    std::uint64_t missing = cell.payload_size - cell.payload.size();
    std::vector<PageNo>& pages = overflow_[number];
    for (PageNo next = cell.overflow; missing > 0;) {
      if (next == 0) return misfit("a chain of overflow pages ends too early", number);
      pages.push_back(next);
      if (changed_ != nullptr && changed_->contains(next)) row.is_overflow_changed = true;
      const std::size_t size = std::min<std::uint64_t>(missing, each);
      missing -= size;
      if (missing == 0 && !wants_content) break;  // the last one's content does not matter
      OFFPRINT_TRY_ASSIGN(ByteView image, state_(next));
      if (wants_content) {
        ByteView part = image.subspan(4, size);
        row.content.insert(row.content.end(), part.begin(), part.end());
      }
      next = load_be<std::uint32_t>(image.data());
    }
    return {};
  }

  const PageSource& state_;
  const std::uint32_t usable_;
  const PageSet* changed_;
  Bytes image_;
  std::unordered_map<std::int64_t, Row> by_rowid_;
  std::map<Bytes, Row> by_record_;
  std::unordered_map<PageNo, std::vector<PageNo>> overflow_;
};

Result<TreeMap> TreeMap::read(const PageSource& state, PageNo root, std::uint32_t usable) {
  TreeMap map(root, usable);
  {
    OFFPRINT_TRY_ASSIGN(ByteView image, state(root));
    OFFPRINT_TRY_ASSIGN(auto page, BtreePage::parse(image, root, usable));
    map.is_table_ = page.is_table();
  }
  Walk walk(state, usable);
  OFFPRINT_TRY(walk.visit(root, 0, [](PageNo) { return true; }));
  map.parent_ = walk.parents();
  for (PageNo page : walk.visited()) {
    Rows rows(state, usable, nullptr);
    OFFPRINT_TRY(rows.read(page));
    for (const auto& [leading, pages] : rows.overflow()) {
      map.overflow_[leading] = pages;
      for (PageNo overflow : pages) map.owner_[overflow] = leading;
    }
  }
  return map;
}

// The pages of the tree that were written, or lead to an overflow page that was.
PageSet TreeMap::touched_by(const PageSet& changed) const {
  PageSet touched;
  for (PageNo page : changed) {
    if (parent_.contains(page)) touched.insert(page);
    auto owner = owner_.find(page);
    if (owner != owner_.end() && !has_bug(SeededBug::kOverflowPages)) touched.insert(owner->second);
  }
  return touched;
}

void TreeMap::forget(const std::vector<PageNo>& pages) {
  for (PageNo page : pages) {
    parent_.erase(page);
    auto overflow = overflow_.find(page);
    if (overflow == overflow_.end()) continue;
    for (PageNo each : overflow->second) owner_.erase(each);
    overflow_.erase(overflow);
  }
}

namespace {

// Subtrees that only one of the two states has where the other was walked.
template <class Map>
std::vector<PageNo> missing_in(const Map& others, const Map& subtrees) {
  std::vector<PageNo> missing;
  for (const auto& [page, parent] : subtrees) {
    if (!others.contains(page)) missing.push_back(page);
  }
  return missing;
}

}  // namespace

Result<TouchedRows> TreeMap::advance(const PageSource& before, const PageSource& after,
                                     const PageSet& changed, Toward toward) {
  const PageSet touched = touched_by(changed);
  if (touched.empty()) return TouchedRows();
  PageSet on_the_way;  // the touched pages and all above them
  std::vector<PageNo> anchors;
  for (PageNo page : touched) {
    bool is_anchor = true;
    on_the_way.insert(page);
    for (PageNo above = parent_.at(page); above != 0; above = parent_.at(above)) {
      if (touched.contains(above)) is_anchor = false;
      on_the_way.insert(above);
    }
    if (is_anchor) anchors.push_back(page);
  }
  Walk then(before, usable_), now(after, usable_);
  for (PageNo anchor : anchors) {
    const PageNo above = parent_.at(anchor);
    OFFPRINT_TRY(then.visit(anchor, above, [&](PageNo page) { return on_the_way.contains(page); }));
    OFFPRINT_TRY(now.visit(anchor, above, [&](PageNo page) {
      return on_the_way.contains(page) || changed.contains(page);
    }));
  }
  OFFPRINT_TRY(settle(then, now, toward));
  Rows rows_then(before, usable_, &changed), rows_now(after, usable_, &changed);
  for (PageNo page : then.visited()) {
    if (has_bug(SeededBug::kFreedPages) && !now.parents().contains(page)) continue;
    OFFPRINT_TRY(rows_then.read(page));
  }
  for (PageNo page : now.visited()) OFFPRINT_TRY(rows_now.read(page));
  forget(then.visited());
  for (const auto& [page, above] : now.parents()) parent_[page] = above;
  for (const auto& [page, above] : now.whole()) parent_[page] = above;
  for (const auto& [leading, pages] : rows_now.overflow()) {
    overflow_[leading] = pages;
    for (PageNo overflow : pages) owner_[overflow] = leading;
  }
  return differing(rows_then, rows_now);
}

// Subtrees that left the tree are visited, too. Parts of them may have stayed: a root that took
// the place of its only child has that one's children. Seen from later they come: what was freed
// was not written.
Result<> TreeMap::settle(Walk& then, Walk& now, Toward toward) {
  for (;;) {
    const auto left = missing_in(now.whole(), then.whole());
    for (PageNo page : left) OFFPRINT_TRY(then.open(page));
    const auto joined = missing_in(then.whole(), now.whole());
    if (left.empty() && joined.empty()) return {};
    if (toward == Toward::kEarlier) {
      for (PageNo page : joined) OFFPRINT_TRY(now.open(page));
    } else if (left.empty()) {
      return misfit("a page came from nowhere", joined.front());
    }
  }
}

TouchedRows TreeMap::differing(Rows& then, Rows& now) {
  TouchedRows touched;
  auto& rowids = then.by_rowid();
  for (const auto& [rowid, row] : now.by_rowid()) {
    auto old = rowids.find(rowid);
    if (old == rowids.end() || !(old->second == row) || row.is_overflow_changed)
      touched.rowids.push_back(rowid);
    if (old != rowids.end()) rowids.erase(old);
  }
  for (const auto& [rowid, row] : rowids) touched.rowids.push_back(rowid);
  auto& records = then.by_record();
  for (const auto& [record, row] : now.by_record()) {
    if (records.erase(record) == 0) touched.records.push_back(record);
  }
  for (const auto& [record, row] : records) touched.records.push_back(record);
  return touched;
}

}  // namespace offprint::publication
