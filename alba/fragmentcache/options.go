package fragmentcache

import (
	"fmt"
	"log/slog"
	"time"

	"openvstorage/internal/disk"
)

// Bounds of the options.
const (
	bytesMin    = 1 << 20
	bytesMax    = segmentsMax * blocksMax * blockSize
	segmentsMin = 8    // of which one is room for a second chance
	segmentsMax = 4096 // so many files are open
)

// Options say where a cache lies and how much it may take. FS, Dir and Bytes
// must be set.
type Options struct {
	FS  disk.FS
	Dir string // made if it is absent; nothing else should be kept in it

	// Bytes bounds all files together, 1 MiB to 4 TiB. Open evicts what exceeds it.
	Bytes int64

	// SegmentBytes is the length of a file. So much is evicted at once, and so much
	// a killed process loses. Default: a 64th of Bytes, but 1 to 256 MiB. It is at
	// most an 8th and at least a 4096th of Bytes.
	SegmentBytes int64

	// PageBytes is what an extent never crosses a border of: a multiple of 4096
	// up to 65536. Default 32768.
	PageBytes int

	// QueueBytes bounds the memory for bytes that were put and not written yet; what
	// does not fit is dropped. Default 16 MiB; at least 128 KiB.
	QueueBytes int64

	// AdmitFirst admits also what is put for the first time when there is no room left.
	AdmitFirst bool

	Logger *slog.Logger // default: none

	now func() time.Time // default time.Now
}

// withDefaults fills in and checks the options.
func (o Options) withDefaults() (Options, error) {
	if o.Bytes < bytesMin || o.Bytes > bytesMax {
		return o, fmt.Errorf("fragment cache %s of %d bytes: give it %d to %d", o.Dir, o.Bytes, int64(bytesMin), int64(bytesMax))
	}
	if o.SegmentBytes <= 0 {
		o.SegmentBytes = min(max(o.Bytes/64, 1<<20), 256<<20)
	}
	o.SegmentBytes = max(o.SegmentBytes, o.Bytes/segmentsMax, bytesMin/segmentsMin)
	o.SegmentBytes = min(o.SegmentBytes, o.Bytes/segmentsMin, blocksMax*blockSize)
	if o.PageBytes == 0 {
		o.PageBytes = 32 << 10
	}
	if o.PageBytes < blockSize || o.PageBytes > runMax*blockSize || o.PageBytes%blockSize != 0 {
		return o, fmt.Errorf("fragment cache %s with pages of %d bytes: give a multiple of %d up to %d", o.Dir, o.PageBytes, blockSize, runMax*blockSize)
	}
	if o.QueueBytes == 0 {
		o.QueueBytes = 16 << 20
	}
	o.QueueBytes = max(o.QueueBytes, 2*runMax*blockSize)
	if o.now == nil {
		o.now = time.Now
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return o, nil
}

// Stats are the figures of a cache. Counts begin when it was opened.
type Stats struct {
	Hits   uint64 // gets that were answered
	Misses uint64
	// Corrupt counts the calls of Bad, ReadErrors the reads that the disk failed.
	Corrupt    uint64
	ReadErrors uint64

	// Of the bytes that were put, Written were written, Refused were not admitted
	// because they were not put before (see Options.AdmitFirst), and Dropped found
	// the queue full or writing turned off. Bytes that the cache had already are in
	// none of these.
	Written uint64
	Refused uint64
	Dropped uint64
	Kept    uint64 // bytes that had a second chance
	Evicted uint64 // bytes of files removed to make room

	Bytes      int64 // of the files
	Segments   int
	Extents    int
	IndexBytes int64 // of the index in memory, with checksums and what admission remembers

	// Off: a write failed, and nothing more is written for a while.
	Off bool
}
