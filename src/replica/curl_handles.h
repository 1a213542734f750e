#pragma once

#include <memory>

#include <curl/curl.h>

// Owners of libcurl's handles, all of which are void* to the compiler but for lists.
namespace offprint::replica {

struct EasyCleanup {
  void operator()(CURL* easy) const { curl_easy_cleanup(easy); }
};
struct MultiCleanup {
  void operator()(CURLM* multi) const { curl_multi_cleanup(multi); }
};
struct ListCleanup {
  void operator()(curl_slist* list) const { curl_slist_free_all(list); }
};
using EasyHandle = std::unique_ptr<CURL, EasyCleanup>;
using MultiHandle = std::unique_ptr<CURLM, MultiCleanup>;
using CurlList = std::unique_ptr<curl_slist, ListCleanup>;

}  // namespace offprint::replica
