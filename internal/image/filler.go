package image

import (
	"fmt"
	"hash/crc32"
	"iter"

	"openvstorage/nbd"
	"openvstorage/nbd/nbdclient"
)

// filler writes to a vDisk, several writes at a time, and remembers checksums of what it
// wrote.
type filler struct {
	disk *nbdclient.Client
	free chan *piece
	err  error
	sums []sum
}

// sum is the CRC-32C of a piece of the image of which something was written.
type sum struct {
	span
	crc uint32
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func newFiller(disk *nbdclient.Client) *filler {
	w := &filler{disk: disk, free: make(chan *piece, pieces)}
	for range pieces {
		w.free <- newPiece(nbd.CmdWrite)
	}
	return w
}

// write writes the clusters of p that are not all zeros. p is at most a piece, and may
// be used again when write returns.
func (w *filler) write(off int64, p []byte) error {
	zero := true
	for at, run := range dataRuns(p) {
		zero = false
		next := w.take()
		if w.err != nil {
			w.free <- next
			return w.err
		}
		next.Offset, next.Data = uint64(off)+uint64(at), next.memory[:copy(next.memory, run)]
		w.disk.Start(&next.Request)
		w.free <- next
	}
	if !zero {
		w.sums = append(w.sums, sum{span{off, int64(len(p))}, crc32.Checksum(p, castagnoli)})
	}
	return nil
}

// take returns the oldest request when it is answered. A request that was never sent has
// no Data.
func (w *filler) take() *piece {
	p := <-w.free
	if p.Data == nil {
		return p
	}
	<-p.ready
	if p.Err != nil && w.err == nil {
		w.err = fmt.Errorf("write at offset %d: %w", p.Offset, p.Err)
	}
	p.Data = nil
	return p
}

// wait waits for all requests that are under way.
func (w *filler) wait() error {
	for range pieces {
		w.take()
	}
	return w.err
}

// compare reads back what was written, and compares checksums.
func (w *filler) compare(at func(off int64)) error {
	next := 0
	return readSpans(w.disk, w.written(), func(off int64, p []byte) error {
		want := w.sums[next]
		next++
		at(off)
		if got := crc32.Checksum(p, castagnoli); got != want.crc {
			return fmt.Errorf("%d bytes at offset %d: written with CRC %08x, read back with %08x", want.n, off, want.crc, got)
		}
		return nil
	})
}

func (w *filler) written() iter.Seq2[span, error] {
	return func(yield func(span, error) bool) {
		for _, s := range w.sums {
			if !yield(s.span, nil) {
				return
			}
		}
	}
}
