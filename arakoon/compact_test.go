package arakoon

import (
	"fmt"
	"testing"

	"openvstorage/internal/disk"
	"openvstorage/internal/disk/crashdisk"
)

// segmentsMax is what may lie in the log's directory with testOptions: what is
// compacted from, the segment that is written, the next one's file, and one that
// was begun while the log was compacted.
const segmentsMax = 256/64 + 4

func logFiles(t *testing.T, d disk.FS) int {
	t.Helper()
	names, err := d.ReadDir("/node/log")
	if err != nil {
		t.Fatal(err)
	}
	return len(names)
}

// Each opening of a log begins a segment. However often the process is killed,
// also soon after the start and with nothing written, they do not add up.
func TestKillsDoNotGrowTheLog(t *testing.T) {
	for _, writes := range []int{0, 1} {
		t.Run(fmt.Sprint(writes), func(t *testing.T) {
			d := crashdisk.New()
			for i := range 30 {
				n := open(t, testOptions(d))
				for range writes {
					set(t, n, "key", fmt.Sprint(i))
				}
				d = d.Kill()
				if have := logFiles(t, d); have > segmentsMax {
					t.Fatalf("after %d kills the log has %d files", i+1, have)
				}
			}
			n := open(t, testOptions(d))
			if writes > 0 {
				has(t, n, "key", "29")
			}
		})
	}
}

// A log of which only little is entries is compacted as well: what counts is what
// it takes on the disk.
func TestSmallEntriesAreCompacted(t *testing.T) {
	d := crashdisk.New()
	n := open(t, testOptions(d))
	for i := range 400 {
		set(t, n, "key", fmt.Sprint(i))
	}
	for i := range 2000 { // in the background, and each takes a while
		if logFiles(t, d) <= segmentsMax {
			return
		}
		set(t, n, "key", fmt.Sprint(i))
	}
	t.Errorf("the log has %d files", logFiles(t, d))
}
