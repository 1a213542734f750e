#include "server/metrics.h"

#include <string_view>

#include <fmt/format.h>

#include "server/authenticator.h"
#include "server/json_writer.h"

namespace offprint::server {
namespace {

void append_metric(std::string& to, std::string_view name, std::string_view type,
                   std::string_view help, std::uint64_t value) {
  to += "# HELP offprint_";
  to += name;
  to += ' ';
  to += help;
  to += "\n# TYPE offprint_";
  to += name;
  to += ' ';
  to += type;
  to += "\noffprint_";
  to += name;
  to += ' ';
  append_unsigned(to, value);
  to += '\n';
}

void append_times(std::string& to, const database::StatementSums& sums) {
  to +=
      "# HELP offprint_statement_seconds Time of statements in SQLite.\n"
      "# TYPE offprint_statement_seconds histogram\n";
  std::uint64_t up_to = 0;
  for (std::size_t i = 0; i < sums.kBucketSeconds.size(); ++i) {
    up_to += sums.by_time[i];
    to += fmt::format("offprint_statement_seconds_bucket{{le=\"{}\"}} {}\n", sums.kBucketSeconds[i],
                      up_to);
  }
  to += fmt::format(
      "offprint_statement_seconds_bucket{{le=\"+Inf\"}} {0}\noffprint_statement_seconds_sum "
      "{1:.6f}\noffprint_statement_seconds_count {0}\n",
      sums.count(), static_cast<double>(sums.time_ns) / 1e9);
}

}  // namespace

std::string metrics_text(Service& service) {
  std::string text;
  auto gauge = [&](std::string_view name, std::string_view help, std::uint64_t value) {
    append_metric(text, name, "gauge", help, value);
  };
  auto counter = [&](std::string_view name, std::string_view help, std::uint64_t value) {
    append_metric(text, name, "counter", help, value);
  };
  database::StoreMetrics store = service.store.metrics();
  gauge("databases", "Databases in the catalog.", store.databases);
  gauge("databases_open", "Databases whose files are open.", store.open_databases);
  counter("requests_read_total", "Requests that only read.", store.requests_read);
  counter("requests_write_total", "Requests that went through a writer queue.",
          store.requests_write);
  counter("batches_total", "SQLite transactions that carried requests.", store.batches);
  counter("transactions_total", "Transactions committed.", store.transactions);
  counter("rejected_total", "Requests of which nothing happened.", store.rejected);
  counter("offenders_total", "Requests that ended a shared transaction and ran again alone.",
          store.offenders);
  counter("journal_syncs_total", "fdatasync calls on the journal.", store.journal_syncs);
  counter("journal_bytes_total", "Bytes appended to the journal, without large payloads.",
          store.journal_bytes);
  gauge("journal_disk_bytes", "Size of the journal's segments, with the prepared ones.",
        store.journal_disk_bytes);
  counter("checkpoints_total", "Checkpoints of databases.", store.checkpoints);
  counter("recoveries_total", "Databases recovered from the journal.", store.recoveries);
  gauge("queue_length", "Requests waiting for a writer.", store.queue_length);
  counter("statements_total", "Statements that ran.", store.statements.count());
  append_times(text, store.statements);
  counter("rows_read_total", "Rows that statements read, an estimate.", store.statements.rows_read);
  counter("rows_written_total", "Rows that statements wrote.", store.statements.rows_written);
  counter("slow_statements_total", "Statements that took --slow-ms or longer.",
          store.statements.slow);
  gauge("client_streams_pinned", "Client streams with an open transaction or stored SQL.",
        service.streams.pinned_count());
  if (service.follower_status) {
    replica::NodeFollower::Status follower = service.follower_status();
    gauge("follower_connected", "1: the stream of the followed node is open.", follower.connected);
    gauge("follower_databases", "Databases on that stream.", follower.databases);
    counter("follower_transactions_total", "Transactions applied to copies.",
            follower.transactions);
    counter("follower_bytes_total", "Bytes of these transactions.", follower.bytes);
    counter("follower_copies_total", "Snapshots and differences taken.", follower.copies);
    gauge("follower_waiting_bytes", "Received and not applied yet.", follower.waiting_bytes);
    gauge("follower_silence_ms", "Since anything came from the followed node.",
          static_cast<std::uint64_t>(follower.heard_ms_ago));
  }
  if (service.archive_status) {
    archive::Archiver::Status archive = service.archive_status();
    gauge("archive_databases_behind", "Databases with transactions that are not in the archive.",
          archive.behind);
    gauge("archive_lag_ms", "How long the oldest of these transactions waits.",
          static_cast<std::uint64_t>(archive.lag_ms));
    counter("archive_puts_total", "Objects put into the archive.", archive.puts);
    counter("archive_bytes_total", "Bytes of these objects.", archive.bytes);
    counter("archive_failures_total", "Attempts to archive a database that failed.",
            archive.failures);
  }
  if (service.authenticator != nullptr) {
    gauge("tokens_cached", "Tokens that were verified and are remembered.",
          service.authenticator->cached_count());
    counter("tokens_refused_total", "Requests without a token that counts.",
            service.authenticator->refused_count());
  }
  if (!service.http_counters) return text;
  HttpCounters http = service.http_counters();
  counter("http_requests_total", "HTTP requests.", http.requests);
  counter("http_responses_4xx_total", "Answers with a status from 400 to 499.", http.responses_4xx);
  counter("http_responses_5xx_total", "Answers with a status from 500 on.", http.responses_5xx);
  counter("http_received_bytes_total", "Bytes received from clients.", http.bytes_in);
  counter("http_sent_bytes_total", "Bytes sent to clients.", http.bytes_out);
  counter("http_connections_total", "Connections accepted.", http.accepted);
  counter("http_connections_refused_total", "Connections refused because there were too many.",
          http.refused);
  counter("http_timeouts_total", "Connections closed because a client was too slow.",
          http.timeouts);
  gauge("http_connections", "Connections open.", http.connections);
  gauge("http_streams", "Answers being streamed.", http.streams_open);
  return text;
}

}  // namespace offprint::server
