package asd

import (
	"log/slog"
	"time"

	"openvstorage/alba/osd"
	"openvstorage/internal/disk"

	"github.com/google/uuid"
)

// Identity says which ASD it is, whose, and where.
type Identity struct {
	ID    uuid.UUID
	Owner uuid.UUID // backend that has claimed it, zero: none
	Node  string    // machine that it is in, at most NodeMax bytes
	// Life counts the recoveries of its backend, from zero. Generation is the newest
	// generation of the backend that the ASD had seen when its identity was written;
	// ASD.Claimed returns the newest that it has seen since.
	Life       uint64
	Generation uint64
}

// NodeMax bounds Identity.Node, in bytes.
const NodeMax = 255

// Defaults of Options.
const (
	DefaultSegmentBytes    = 256 << 20
	DefaultFullAt          = 0.99
	DefaultQueueBytes      = 128 << 20
	DefaultBatchBytes      = 32 << 20
	DefaultTableCacheBytes = 16 << 20
	DefaultCompactRate     = 64 << 20
	DefaultSpares          = 2
	DefaultRest            = 5 * time.Second
)

// segmentBytesMax is the most of SegmentBytes. No batch ends behind it: even the
// largest, alone in a segment, is far shorter.
const segmentBytesMax = 1 << 30

// reserveSize is how many bytes are kept for deletes on a disk without room. Each
// batch of deletes takes a block of them or more. Deletes leave segments in which
// nothing lives, and compaction removes those without writing.
func (o *Options) reserveSize() int64 { return min(o.SegmentBytes/16, 16<<20) + 15*blockSize }

// Options say how an ASD is opened. FS and Dir must be set.
type Options struct {
	FS  disk.FS
	Dir string

	// Capacity is how many bytes the ASD may take, 0: what it takes and what
	// the file system has left, which other ASDs on it share.
	Capacity uint64
	// FullAt is the part of Capacity from which puts are refused. A segment's
	// length stays free as well, so that compaction always has room.
	FullAt float64
	// Leave, if set, is asked how many bytes of the file system puts leave to
	// others, which are worse off without room.
	Leave func() uint64
	// SegmentBytes is the length at which a segment is closed, up to 1 GiB. One
	// that begins with a longer batch is as long as that.
	SegmentBytes int64
	// BatchBytes bounds what is written with one sync, unless one Apply has
	// more by itself.
	BatchBytes int64
	// QueueBytes bounds the values of Applys that wait or are being written;
	// further ones wait for room.
	QueueBytes int64
	// TableCacheBytes bounds the cache of CRC tables. 16 MiB hold those of 16
	// GiB of values.
	TableCacheBytes int64
	// CompactRate is how many bytes a second compaction copies while the disk is
	// not nearly full, negative: as many as it can.
	CompactRate int64
	// Spares is how many segments that have become free are kept to be written
	// over, which needs less metadata than growing new ones; negative: none.
	Spares int
	// Rest is after how long without a write the ASD gives room back that it
	// keeps to be fast: spares, and the dead part of the segment that it was
	// writing; negative: never.
	Rest time.Duration

	// Descriptors bounds the files that are open for reading, of all ASDs that
	// share it; nil: NewDescriptors(0), of this one alone. Beside them an ASD has
	// its lock open, and up to four files that it writes.
	Descriptors *Descriptors

	Logger *slog.Logger // nil: none
	// OnCorrupt, if not nil, is called for each value that did not match its
	// checksums when it was read, from the goroutine that read it.
	OnCorrupt func(key []byte, err error)

	patience time.Duration // for a descriptor; 0: patienceFor
	inspect  time.Duration // between looks at files that have not changed; 0: inspectEvery
}

func (o Options) withDefaults() Options {
	def := func(v *int64, d int64) {
		if *v == 0 {
			*v = d
		}
	}
	def(&o.SegmentBytes, DefaultSegmentBytes)
	def(&o.BatchBytes, DefaultBatchBytes)
	def(&o.QueueBytes, DefaultQueueBytes)
	def(&o.TableCacheBytes, DefaultTableCacheBytes)
	def(&o.CompactRate, DefaultCompactRate)
	o.SegmentBytes = min(max(roundUp(o.SegmentBytes), 4*blockSize), segmentBytesMax)
	o.BatchBytes = min(max(o.BatchBytes, blockSize), osd.ApplyMax)
	if o.FullAt <= 0 || o.FullAt > 1 {
		o.FullAt = DefaultFullAt
	}
	if o.Spares == 0 {
		o.Spares = DefaultSpares
	}
	if o.Rest == 0 {
		o.Rest = DefaultRest
	}
	if o.Descriptors == nil {
		o.Descriptors = NewDescriptors(0)
	}
	if o.patience == 0 {
		o.patience = patienceFor
	}
	if o.inspect == 0 {
		o.inspect = inspectEvery
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return o
}
