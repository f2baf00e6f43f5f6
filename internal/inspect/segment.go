package inspect

import (
	"encoding/hex"
	"errors"
	"fmt"
	"io"

	"openvstorage/alba/asd"
	"openvstorage/alba/manifest"
	"openvstorage/alba/osd"
	"openvstorage/internal/disk/osdisk"
)

// SegmentReport is what inspection finds in a segment.
type SegmentReport struct {
	Segment  asd.Segment    `json:"segment"`
	Batches  int            `json:"batches"`
	FirstSeq uint64         `json:"firstSeq"`
	LastSeq  uint64         `json:"lastSeq"`
	Durable  uint64         `json:"durable"` // the highest seq that the file says was synced
	Puts     int            `json:"puts"`    // whole
	Deletes  int            `json:"deletes"`
	Bytes    uint64         `json:"bytes"` // of values that verify
	Entries  []SegmentEntry `json:"entries,omitempty"`
	Damage   Damage         `json:"damage"`
}

// SegmentEntry is a put or a delete that verifies.
type SegmentEntry struct {
	Seq    uint64 `json:"seq"`
	Key    string `json:"key"`
	Delete bool   `json:"delete,omitempty"`
	Size   uint32 `json:"size"`
	Offset int64  `json:"offset"`
	Epoch  uint64 `json:"epoch"`
}

// Segment verifies all that a segment of an ASD holds, and goes on behind damage. An
// error says that the file is no segment.
func Segment(name string) (*SegmentReport, error) {
	r := &SegmentReport{}
	var err error
	r.Segment, err = asd.ScanSegment(osdisk.New(), name, func(b *asd.Record) error {
		r.record(b)
		return nil
	})
	return r, err
}

func (r *SegmentReport) record(b *asd.Record) {
	switch {
	case b.Gap && errors.Is(b.Err, osd.ErrUnreadable):
		r.Damage.fault("%d bytes at offset %d cannot be read, and batches may be in them: %v", b.Length, b.Offset, b.Err)
		return
	case b.Gap:
		r.Damage.fault("%d bytes at offset %d are no batch, and there are others behind: %v", b.Length, b.Offset, b.Err)
		return
	case b.Err != nil:
		r.Damage.fault("batch %d at offset %d: %v", b.Seq, b.Offset, b.Err)
	}
	r.Durable = max(r.Durable, b.Durable)
	if b.Mark {
		return
	}
	if r.Batches++; r.FirstSeq == 0 {
		r.FirstSeq = b.Seq
	}
	r.LastSeq = b.Seq
	for i, e := range b.Entries {
		if err := b.Check(i); err != nil {
			r.Damage.fault("value of %s, in batch %d at offset %d: %v", showKey(e.Key), b.Seq, b.Offset, err)
			continue
		}
		if e.Delete {
			r.Deletes++
		} else {
			r.Puts++
			r.Bytes += uint64(e.Size)
		}
		r.Entries = append(r.Entries, SegmentEntry{b.Seq, showKey(e.Key), e.Delete, e.Size, e.Offset, e.Epoch})
	}
}

// showKey writes a key for people, by its parts: the key of a fragment, or of what lies
// beside a fragment.
func showKey(b []byte) string {
	if k, err := manifest.ParseKey(b); err == nil {
		return k.String()
	}
	if k, err := manifest.ParseRecoveryKey(b); err == nil {
		return fmt.Sprintf("recovery of %v", k)
	}
	return hex.EncodeToString(b)
}

// Write writes the report for people.
func (r *SegmentReport) Write(w io.Writer) {
	row := table(w)
	row("segment", "%016x, %s", r.Segment.Number, human(uint64(r.Segment.Size)))
	row("asd", "%s", r.Segment.ASD)
	row("incarnation", "%016x", r.Segment.Incarnation)
	row("batches", "%d, seq %d to %d, durable %d", r.Batches, r.FirstSeq, r.LastSeq, r.Durable)
	row("verified", "%d puts of %s, %d deletes", r.Puts, human(r.Bytes), r.Deletes)
	for _, e := range r.Entries {
		if e.Delete {
			row("delete", "seq %d, %s", e.Seq, e.Key)
		} else {
			row("put", "seq %d, %s, %d bytes at offset %d, epoch %d", e.Seq, e.Key, e.Size, e.Offset, e.Epoch)
		}
	}
	for _, text := range r.Damage {
		row("DAMAGE", "%s", text)
	}
}
