// The stock LTX library's side of ../ltx.sh: the stock program can verify and apply, but not write a file
// (its encode-db stops at its own header check), so this makes files with its encoder and compactor.
//
//	ltx_stock encode NEW OUT TXID [OLD]   the change from OLD to NEW; without OLD a snapshot
//	ltx_stock compact OUT FILE...
//
// FLAGS=2 in the environment: no checksums.
package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"strconv"

	"github.com/superfly/ltx"
)

func must(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func read(path string) (pages [][]byte, size uint32) {
	raw, err := os.ReadFile(path)
	must(err)
	size = uint32(binary.BigEndian.Uint16(raw[16:]))
	if size == 1 {
		size = 65536
	}
	for ; len(raw) > 0; raw = raw[size:] {
		pages = append(pages, raw[:size])
	}
	return pages, size
}

func checksum(pages [][]byte) ltx.Checksum {
	sum := ltx.ChecksumFlag
	for i, page := range pages {
		sum = ltx.ChecksumFlag | (sum ^ ltx.ChecksumPage(uint32(i+1), page))
	}
	return sum
}

func encode(args []string, flags uint32) {
	after, size := read(args[0])
	var before [][]byte
	if len(args) > 3 {
		before, _ = read(args[3])
	}
	txid, err := strconv.ParseUint(args[2], 10, 64)
	must(err)
	out, err := os.Create(args[1])
	must(err)
	enc, err := ltx.NewEncoder(out)
	must(err)
	header := ltx.Header{
		Version: ltx.Version, Flags: flags, PageSize: size, Commit: uint32(len(after)),
		MinTXID: ltx.TXID(txid), MaxTXID: ltx.TXID(txid), Timestamp: 1700000000000, NodeID: 3,
	}
	if flags == 0 && txid != 1 {
		header.PreApplyChecksum = checksum(before)
	}
	must(enc.EncodeHeader(header))
	for i, page := range after {
		if txid != 1 && i < len(before) && bytes.Equal(page, before[i]) {
			continue
		}
		must(enc.EncodePage(ltx.PageHeader{Pgno: uint32(i + 1)}, page))
	}
	if flags == 0 {
		enc.SetPostApplyChecksum(checksum(after))
	}
	must(enc.Close())
	must(out.Close())
}

func compact(args []string, flags uint32) {
	out, err := os.Create(args[0])
	must(err)
	var inputs []io.Reader
	for _, path := range args[1:] {
		file, err := os.Open(path)
		must(err)
		inputs = append(inputs, file)
	}
	compactor, err := ltx.NewCompactor(out, inputs)
	must(err)
	compactor.HeaderFlags = flags
	must(compactor.Compact(context.Background()))
	must(out.Close())
}

func main() {
	flags, _ := strconv.ParseUint(os.Getenv("FLAGS"), 10, 32)
	switch os.Args[1] {
	case "encode":
		encode(os.Args[2:], uint32(flags))
	case "compact":
		compact(os.Args[2:], uint32(flags))
	}
}
