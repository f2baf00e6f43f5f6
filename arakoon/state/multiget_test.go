package state

import (
	"fmt"
	"testing"

	"openvstorage/internal/disk/crashdisk"
)

// BenchmarkMultiGet: what reads of some keys at one moment cost. (A snapshot of Pebble in the
// place of the iterator took 3 times as long here, and more in a state that has files: its end
// has Pebble look for work.)
func BenchmarkMultiGet(b *testing.B) {
	s := open(b, crashdisk.New())
	keys := make([][]byte, 100)
	for i := range keys {
		keys[i] = fmt.Appendf(nil, "key %d", i)
	}
	for _, n := range []int{0, 1, 2, 100} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := s.MultiGet(keys[:n]); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
