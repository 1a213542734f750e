#include "archive/s3_xml.h"

#include <gtest/gtest.h>

namespace offprint::archive {
namespace {

TEST(S3Xml, ReadsWhatServicesSay) {
  auto root = parse_xml(
      "<?xml version=\"1.0\"?>\n<!-- <no> -->\n<s3:Result xmlns:s3=\"http://s3.example/\">\n"
      " <Key>a&amp;b &#x20ac;&#65;&lt;&unknown;& x</Key><Empty/><Size >12</Size >"
      "<Tag><![CDATA[\"<raw>&amp;\"]]></Tag><!-- - --><Key>second</Key></s3:Result>\n");
  ASSERT_TRUE(root) << root.error().message();
  EXPECT_EQ(root->name, "Result");
  EXPECT_EQ(root->text_of("Key"),
            "a&b \xe2\x82\xac"
            "A<&unknown;& x");
  EXPECT_EQ(root->text_of("Size"), "12");
  EXPECT_EQ(root->text_of("Tag"), "\"<raw>&amp;\"");
  EXPECT_EQ(root->text_of("Absent"), "");
  ASSERT_NE(root->child("Empty"), nullptr);
  EXPECT_EQ(root->child("Absent"), nullptr);
  EXPECT_EQ(root->children.size(), 5U);
}

TEST(S3Xml, RefusesWhatIsNoElement) {
  std::string deep;
  for (int i = 0; i < 100'000; ++i) deep += "<a>";
  for (const std::string& text :
       {std::string(), std::string("plain"), std::string("<a>"), std::string("<a><b></a></b>"),
        std::string("<a><b>x</a>"), std::string("<"), std::string("<>x</>"), std::string("<!--"),
        std::string("<a><![CDATA[x</a>"), std::string("</a>"), deep}) {
    auto root = parse_xml(text);
    ASSERT_FALSE(root) << text;
    EXPECT_EQ(root.error().code(), Code::kCorrupt);
  }
}

// Cut anywhere, an answer is refused and never half read.
TEST(S3Xml, CutAnswersAreRefused) {
  std::string text = "<R><Key>a&amp;b</Key><C><![CDATA[x]]></C><!-- c --><E/></R>";
  ASSERT_TRUE(parse_xml(text));
  for (std::size_t size = 0; size < text.size(); ++size)
    EXPECT_FALSE(parse_xml(text.substr(0, size))) << size;
}

}  // namespace
}  // namespace offprint::archive
