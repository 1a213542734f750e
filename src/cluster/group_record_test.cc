#include "cluster/group_record.h"

#include <gtest/gtest.h>

namespace offprint::cluster {
namespace {

// What the first version of the format wrote: it must be read for ever.
constexpr std::string_view kFirst =
    R"({"v":1,"epoch":7,"primary":"n1@00000000000000a1","isr":["n1@00000000000000a1",)"
    R"("n2@ffffffffffffffff"],"replicas":["n1@00000000000000a1","n2@ffffffffffffffff",)"
    R"("n3@00000000000000c3"],"min_isr":2,"state":"NORMAL",)"
    R"("lineage":"0123456789abcdef0123456789abcdef"})";

GroupRecord first() {
  RecordMember n1{"n1", 0xa1}, n2{"n2", ~std::uint64_t{0}}, n3{"n3", 0xc3};
  GroupRecord record;
  record.epoch = Epoch{7};
  record.primary = n1;
  record.in_sync = {n1, n2};
  record.replicas = {n1, n2, n3};
  record.min_in_sync = 2;
  record.lineage = *Lineage::parse("0123456789abcdef0123456789abcdef");
  return record;
}

std::string with(std::string from, const std::string& to) {
  std::string text(kFirst);
  std::size_t at = text.find(from);
  EXPECT_NE(at, std::string::npos) << from;
  return text.replace(at, from.size(), to);
}

TEST(GroupRecord, IsWrittenAndReadAsInTheFirstVersion) {
  EXPECT_EQ(first().to_json(), kFirst);
  auto read = GroupRecord::parse(kFirst);
  ASSERT_TRUE(read) << read.error().message();
  EXPECT_EQ(*read, first());
}

TEST(GroupRecord, AForcedOneSaysSo) {
  GroupRecord record = first();
  record.state = GroupRecord::State::kForced;
  auto read = GroupRecord::parse(record.to_json());
  ASSERT_TRUE(read);
  EXPECT_EQ(*read, record);
}

TEST(GroupRecord, UnknownFieldsAreIgnored) {
  auto read = GroupRecord::parse(with("{", R"({"zone":{"a":[1]},)"));
  ASSERT_TRUE(read) << read.error().message();
  EXPECT_EQ(*read, first());
}

TEST(GroupRecord, ANewerVersionIsNamedAsSuch) {
  auto read = GroupRecord::parse(R"({"v":3,"members":"another shape"})");
  ASSERT_FALSE(read);
  EXPECT_EQ(read.error().code(), Code::kInvalid);
  EXPECT_NE(read.error().message().find("newer"), std::string::npos);
}

TEST(GroupRecord, WhatIsIllFormedIsRefused) {
  const std::string n1 = "\"n1@00000000000000a1\"", n2 = "\"n2@ffffffffffffffff\"";
  const std::string both = n1 + "," + n2;
  for (const std::string& text : {
           std::string(),
           std::string("[]"),
           std::string("{}"),
           std::string(kFirst.substr(0, kFirst.size() - 1)),
           with("\"v\":1", "\"v\":0"),
           with("\"v\":1", "\"v\":\"1\""),
           with("\"epoch\":7", "\"epoch\":0"),
           with("\"epoch\":7", "\"epoch\":4294967296"),
           with("\"epoch\":7", "\"epoch\":7.5"),
           with("\"epoch\":7,", ""),
           with("\"primary\":" + n1, "\"primary\":\"n3@00000000000000c3\""),
           with("\"primary\":" + n1, "\"primary\":\"n1\""),
           with("n1@00000000000000a1", "n1@00000000000000A1"),
           with("n1@00000000000000a1", "N1@00000000000000a1"),
           with("n1@00000000000000a1", "n1@a1"),
           with("\"isr\":[" + both, "\"isr\":[" + n2),
           with("\"isr\":[" + both, "\"isr\":[" + both + "," + n1),
           with("\"isr\":[" + both, "\"isr\":[" + n1 + ",\"n2@0000000000000001\""),
           with("\"isr\":[" + both, "\"isr\":[" + n1 + ",2"),
           with("n3@00000000000000c3", "n2@00000000000000c3"),
           with("\"min_isr\":2", "\"min_isr\":0"),
           with("\"min_isr\":2", "\"min_isr\":17"),
           with("NORMAL", "normal"),
           with("0123456789abcdef0123456789abcdef", "0123456789abcdef"),
       }) {
    auto read = GroupRecord::parse(text);
    ASSERT_FALSE(read) << text;
    EXPECT_EQ(read.error().code(), Code::kCorrupt) << text;
    EXPECT_FALSE(read.error().message().empty());
  }
}

TEST(GroupRecord, MembersAreTextsBothWays) {
  RecordMember member{"node-1.a_b", 0x1234};
  EXPECT_EQ(member.text(), "node-1.a_b@0000000000001234");
  EXPECT_EQ(RecordMember::parse(member.text()), member);
  for (const char* text : {"", "@0000000000000001", "a@0000000000000000", "a@000000000000001",
                           "a@00000000000000001", "a/b@0000000000000001", "a@b@0000000000000001"}) {
    EXPECT_FALSE(RecordMember::parse(text)) << text;
  }
}

TEST(RecordKeys, NameRecordsBothWays) {
  RecordKeys keys{"shop"};
  EXPECT_EQ(keys.group(12), "/shop/pg/12");
  EXPECT_EQ(keys.node("n1"), "/shop/node/n1");
  EXPECT_EQ(keys.format(), "/shop/format");
  EXPECT_EQ(keys.group_of("/shop/pg/12"), 12u);
  EXPECT_EQ(keys.group_of("/shop/pg/0"), 0u);
  EXPECT_EQ(keys.node_of("/shop/node/n1"), "n1");
  for (const char* key : {"/shop/pg/", "/shop/pg/01", "/shop/pg/1x", "/shop/pg/-1", "/shops/pg/1",
                          "/shop/pg/4294967296", "/shop/node/"}) {
    EXPECT_FALSE(keys.group_of(key)) << key;
    EXPECT_FALSE(keys.node_of(key)) << key;
  }
}

}  // namespace
}  // namespace offprint::cluster
