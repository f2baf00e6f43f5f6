package metrics

import (
	"path/filepath"
	"strings"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"

	"openvstorage/internal/disk"
	"openvstorage/internal/disk/osdisk"
)

// Causes of what a server writes to its disks.
const (
	causeBuffer  = "buffer"  // SCOs and TLogs of the write buffer
	causeMap     = "map"     // pages of the vDisks' maps
	causeBackend = "backend" // objects, in ASDs or a local directory
	causeCache   = "cache"   // fragments that were read
	causeRaft    = "raft"    // logs of the Arakoon groups
	causeState   = "state"   // Pebble of the Arakoon groups
	causeOther   = "other"
)

// Written counts the bytes that a server writes, by cause.
type Written struct {
	dir    string
	counts map[string]*atomic.Uint64
}

// NewWritten counts what the server of a data directory writes.
func NewWritten(dir string) *Written {
	w := &Written{dir: dir, counts: map[string]*atomic.Uint64{}}
	for _, cause := range []string{causeBuffer, causeMap, causeBackend, causeCache, causeRaft, causeState, causeOther} {
		w.counts[cause] = new(atomic.Uint64)
	}
	return w
}

// FS is the file system of the machine, whose writes are counted.
func (w *Written) FS() disk.FS {
	return osdisk.Counted(func(name string) *atomic.Uint64 { return w.counts[w.cause(name)] })
}

// cause is the cause of writes to a file. ASDs may be anywhere: a file that is not below
// the data directory is theirs.
func (w *Written) cause(name string) string {
	below, err := filepath.Rel(w.dir, name)
	if err != nil || below == ".." || strings.HasPrefix(below, "../") {
		return causeBackend
	}
	parts := strings.Split(below, "/")
	switch parts[0] {
	case "buffer", "map", "cache":
		return parts[0]
	case "asd", "backend":
		return causeBackend
	case "arakoon":
		if len(parts) > 2 && parts[2] == "state" {
			return causeState
		}
		return causeRaft
	}
	return causeOther
}

var descDiskWritten = prometheus.NewDesc("ovs_disk_written_bytes_total", "Bytes written to files, by what they are for.", []string{"cause"}, nil)

// Describe implements prometheus.Collector.
func (w *Written) Describe(ch chan<- *prometheus.Desc) { ch <- descDiskWritten }

// Collect implements prometheus.Collector.
func (w *Written) Collect(ch chan<- prometheus.Metric) {
	for cause, n := range w.counts {
		ch <- prometheus.MustNewConstMetric(descDiskWritten, prometheus.CounterValue, float64(n.Load()), cause)
	}
}

var _ prometheus.Collector = (*Written)(nil)
