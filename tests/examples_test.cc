// The examples run as they stand.
#include <sstream>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/server_process.h"

namespace offprint::testing {
namespace {

using ::testing::HasSubstr;

class ExamplesTest : public ::testing::Test {
 protected:
  void SetUp() override { ASSERT_TRUE(server_.start()); }
  std::string expect_done(const Finished& done) {
    EXPECT_EQ(done.exit_code, 0) << done.err;
    return done.out;
  }

  TemporaryFolder folder_;
  ServerProcess server_{folder_};
};

TEST_F(ExamplesTest, OrdersAndDashboard) {
  std::string orders =
      expect_done(run_program({"python3", test_script("../examples/orders.py"), server_.url()}));
  EXPECT_THAT(orders, HasSubstr("refused: "));
  EXPECT_THAT(orders, HasSubstr("3 × pencil\n"));
  std::string replica = folder_ / "orders.db";
  expect_done(server_.run({"follow", "shop/orders", replica, "--once"}));
  std::string figures = expect_done(
      run_program({"python3", test_script("../examples/dashboard.py"), replica, "--once"}));
  EXPECT_EQ(figures, "1 orders, 3 pieces; most of all pencil\n");
}

TEST_F(ExamplesTest, BlueAndGreen) {
  const std::string said =
      expect_done(run_program({"python3", test_script("../examples/blue_green.py"), server_.url(),
                               server_.url(), "baskets"}));
  EXPECT_THAT(said, HasSubstr("82 orders of 20 users"));
}

TEST_F(ExamplesTest, Tenants) {
  Finished done = run_program({"bash", test_script("../examples/tenants.sh")},
                              {{"OFFPRINT", program()}, {"OFFPRINT_SERVER", server_.url()}});
  EXPECT_THAT(expect_done(done), HasSubstr("ada.db\nedsger.db\ngrace.db\n"));
  EXPECT_EQ(server_.query("tenant/ada", "SELECT text FROM notes"), "[[\"hello from ada\"]]");
}

TEST(SkipTheApiTest, PlaysWithItsOwnServer) {
  Finished done = run_program({"python3", test_script("../examples/skip-the-api/run.py")},
                              {{"OFFPRINT", program()}, {"ORDERS", "4000"}}, {}, 300);
  ASSERT_EQ(done.exit_code, 0) << done.out << done.err;
  EXPECT_THAT(done.out, HasSubstr("picking.quantity belongs to shop.items\n"));
  EXPECT_THAT(done.out, HasSubstr("another one's part is refused\n"));
  EXPECT_THAT(done.out, HasSubstr("renaming alone is refused: True\n"));
  EXPECT_THAT(done.out, HasSubstr("v1 and v2 tell the same"));
}

// The image has all libraries that the program asks for.
TEST(ContainerTest, HasWhatTheProgramNeeds) {
  const std::string file = file_text(test_script("../examples/Containerfile"));
  Finished needed = run_program({"bash", "-c",
                                 "ldd \"$0\" > /dev/null; for l in $(readelf -d \"$0\" | sed -n "
                                 "'s/.*NEEDED.*\\[\\(.*\\)\\]/\\1/p'); do "
                                 "dpkg -S \"*linux-gnu/$l\" | head -n 1 | cut -d: -f1; done",
                                 program()});
  ASSERT_EQ(needed.exit_code, 0) << needed.err;
  std::istringstream packages(needed.out);
  int count = 0;
  for (std::string package; packages >> package; ++count) {
    if (package == "libc6") continue;  // every image has it
    EXPECT_THAT(file, HasSubstr(package + " "));
  }
  EXPECT_GE(count, 8) << needed.out;
}

}  // namespace
}  // namespace offprint::testing
