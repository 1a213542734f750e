// Databases that follow a program's own file, with the program in this process.
#include <filesystem>

#include <fmt/format.h>

#include "tail/tail_testing.h"

namespace offprint::tail::testing {
namespace {

class TailerTest : public TailTest {};

constexpr char kTable[] = "CREATE TABLE t(id INTEGER PRIMARY KEY, text TEXT)";

TEST_F(TailerTest, TakesWhatIsThereAndWhatComes) {
  auto writer = program();
  run(writer, kTable);
  start_tail();
  expect_equal_soon();
  for (int i = 0; i < 50; ++i) run(writer, fmt::format("INSERT INTO t VALUES({}, 'x')", i));
  expect_equal_soon();
  EXPECT_EQ(status().comparisons, 1u);
  EXPECT_EQ(status().state, TailState::kFollowing);
}

}  // namespace
}  // namespace offprint::tail::testing
