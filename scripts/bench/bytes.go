package main

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"strings"
)

// written is what a server has written to its disks by cause, and what its
// users have written, in bytes.
type written map[string]float64

// freeAddress returns a TCP address on which nobody listens.
func freeAddress() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer l.Close()
	return l.Addr().String(), nil
}

// scrape reads a server's metrics.
func scrape(ctx context.Context, address string) (written, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+"/metrics", nil)
	if err != nil {
		return nil, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	w := written{}
	lines := bufio.NewScanner(resp.Body)
	for lines.Scan() {
		name, value, ok := strings.Cut(lines.Text(), " ")
		n, err := strconv.ParseFloat(value, 64)
		if !ok || err != nil {
			continue
		}
		metric, labels, _ := strings.Cut(name, "{")
		_, cause, _ := strings.Cut(labels, `cause="`)
		cause, _, _ = strings.Cut(cause, `"`)
		switch metric {
		case "ovs_vdisk_written_bytes_total":
			w["guest"] += n
		case "ovs_disk_written_bytes_total":
			w[cause] += n
		case "ovs_alba_written_bytes_total":
			w["alba "+cause] += n
		}
	}
	return w, lines.Err()
}

// rows says what was written to the disk for each byte of the guests.
func (w written) rows() []row {
	guest := max(1, w["guest"])
	line := func(name, note string, bytes float64) row {
		f := figures{Name: ours}
		f.add(one{figure: bytes / guest})
		return row{Case: "  written for a guest's byte: " + name, Unit: "bytes", Ours: f, Note: note}
	}
	fragments := w["alba data"] + w["alba inline"]
	meta := line("metadata and raft", "map, state and log of the groups", w["map"]+w["state"]+w["raft"])
	meta.Most = 0.05
	return []row{
		line("write buffer", fmt.Sprintf("of %.1f GiB that guests wrote", guest/gib), w["buffer"]),
		line("data fragments", "", fragments),
		line("parity fragments", "", w["alba parity"]),
		line("the rest of ASDs", "heads, checksums, padding, compaction", max(0, w["backend"]-fragments-w["alba parity"])),
		line("map", "", w["map"]),
		line("state of the groups", "", w["state"]),
		line("raft", "", w["raft"]),
		meta,
	}
}
