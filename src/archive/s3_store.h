#pragma once

#include <memory>
#include <string_view>

#include "archive/object_store.h"
#include "archive/s3_client.h"
#include "archive/s3_settings.h"

namespace offprint::archive {

// Objects in a bucket of an S3 service, in Litestream's layout for such. Asks the service nothing
// yet. kInvalid: the URL, the environment, or that there are no keys.
Result<std::unique_ptr<ObjectStore>> open_s3_store(
    std::string_view url, const S3Environment& environment = S3Environment::real(),
    const S3Options& options = {});

}  // namespace offprint::archive
