package main

import (
	"encoding/hex"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"openvstorage/alba/asd"
	"openvstorage/alba/manifest"
	"openvstorage/alba/osd"
	"openvstorage/internal/counted"
	"openvstorage/internal/disk/osdisk"
)

func (a *app) inspectSegment() *cobra.Command {
	entries := false
	c := &cobra.Command{
		Use:   "segment FILE",
		Short: "verify a segment of an ASD: header, every batch, every value and its checksums",
		Long: `ovs inspect segment verifies all that a segment of an ASD (DIR/asd/N/*.seg)
holds. It goes on behind what is damaged, and ends with exit code 1 if there was
any. Of a segment that is being written the last batch may be incomplete.`,
		Args: wants("FILE"),
		RunE: func(_ *cobra.Command, args []string) error {
			r, err := checkSegment(args[0])
			if err != nil {
				return err
			}
			if !entries {
				r.Entries = nil
			}
			if err := a.printShort(r, func(w io.Writer) { writeSegment(w, r) }); err != nil {
				return err
			}
			if len(r.Damage) > 0 {
				return fmt.Errorf("%s: %s, the first: %s", args[0], counted.Of(len(r.Damage), "fault", "faults"), r.Damage[0])
			}
			return nil
		},
	}
	c.Flags().BoolVar(&entries, "entries", false, "list every put and delete")
	return c
}

// segmentReport is what inspection finds in a segment.
type segmentReport struct {
	Segment  asd.Segment    `json:"segment"`
	Batches  int            `json:"batches"`
	FirstSeq uint64         `json:"firstSeq"`
	LastSeq  uint64         `json:"lastSeq"`
	Durable  uint64         `json:"durable"` // the highest seq that the file says was synced
	Puts     int            `json:"puts"`    // whole
	Deletes  int            `json:"deletes"`
	Bytes    uint64         `json:"bytes"` // of values that verify
	Entries  []segmentEntry `json:"entries,omitempty"`
	Damage   []string       `json:"damage"`
}

type segmentEntry struct {
	Seq    uint64 `json:"seq"`
	Key    string `json:"key"`
	Delete bool   `json:"delete,omitempty"`
	Size   uint32 `json:"size"`
	Offset int64  `json:"offset"`
	Epoch  uint64 `json:"epoch"`
}

func (r *segmentReport) fault(format string, args ...any) {
	r.Damage = append(r.Damage, fmt.Sprintf(format, args...))
}

// checkSegment verifies a segment. An error says that it is none.
func checkSegment(name string) (*segmentReport, error) {
	r := &segmentReport{}
	var err error
	r.Segment, err = asd.ScanSegment(osdisk.New(), name, func(b *asd.Record) error {
		r.record(b)
		return nil
	})
	return r, err
}

func (r *segmentReport) record(b *asd.Record) {
	switch {
	case b.Gap && errors.Is(b.Err, osd.ErrUnreadable):
		r.fault("%d bytes at offset %d cannot be read, and batches may be in them: %v", b.Length, b.Offset, b.Err)
		return
	case b.Gap:
		r.fault("%d bytes at offset %d are no batch, and there are others behind: %v", b.Length, b.Offset, b.Err)
		return
	case b.Err != nil:
		r.fault("batch %d at offset %d: %v", b.Seq, b.Offset, b.Err)
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
			r.fault("value of %s, in batch %d at offset %d: %v", showKey(e.Key), b.Seq, b.Offset, err)
			continue
		}
		if e.Delete {
			r.Deletes++
		} else {
			r.Puts++
			r.Bytes += uint64(e.Size)
		}
		r.Entries = append(r.Entries, segmentEntry{b.Seq, showKey(e.Key), e.Delete, e.Size, e.Offset, e.Epoch})
	}
}

// showKey writes a key for people: that of a fragment by its parts.
func showKey(b []byte) string {
	if k, err := manifest.ParseKey(b); err == nil {
		return k.String()
	}
	return hex.EncodeToString(b)
}

func writeSegment(w io.Writer, r *segmentReport) {
	row := func(name, format string, args ...any) {
		fmt.Fprintf(w, "%s\t%s\n", name, fmt.Sprintf(format, args...))
	}
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
