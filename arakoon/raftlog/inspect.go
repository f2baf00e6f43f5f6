package raftlog

import (
	"errors"
	"fmt"
	"path"

	"openvstorage/internal/disk"
	"openvstorage/internal/format"

	"github.com/google/uuid"
	pb "go.etcd.io/raft/v3/raftpb"
)

// Segments returns the names of a log's segment files, oldest first, with the directory.
func Segments(fsys disk.FS, dir string) (names []string, err error) {
	numbers, err := listSegments(fsys, dir)
	for _, n := range numbers {
		names = append(names, path.Join(dir, segmentName(n)))
	}
	return names, err
}

// Segment is the header of a segment file, for inspection.
type Segment struct {
	Cluster     uuid.UUID
	Member      uint64
	Number      uint64
	Incarnation uint64
	Size        int64
	Life        uint64 // of the group
	Generation  uint64 // newest of the host, when the log was opened
}

// Record is what inspection finds in a segment.
type Record struct {
	Offset  int64
	Seq     uint64
	Durable uint64 // what it says was synced
	Kind    string // entries, hard state, snapshot marker, mark, or a number
	First   uint64 // index of the first entry; of a marker, its index
	Last    uint64 // of the last entry
	Term    uint64 // of the last entry, the hard state or the marker
	Commit  uint64 // of the hard state
	Bytes   int    // of the body
	Entries []*pb.Entry
	// Err is not nil if something is wrong with the record. Bytes that are no record
	// at all end the segment, and have no Seq.
	Err error
}

// Inspect reads one segment file, without those beside it, and calls fn for its records in
// order, until fn fails. If the next segment was begun before some records were synced,
// both segments have them, under the same seqs.
func Inspect(fsys disk.FS, name string, fn func(Record) error) (Segment, error) {
	f, err := fsys.OpenFile(name, 0, 0)
	if err != nil {
		return Segment{}, err
	}
	defer f.Close()
	h, b, err := readFile(f, name, nil)
	if err != nil {
		return Segment{}, err
	}
	s := Segment{h.Cluster, h.Member, h.Number, h.Incarnation, int64(len(b)), h.Life, h.Generation}
	records, end, why := scan(b, h.Incarnation, 0, 0)
	last := uint64(0)
	durable, err := laterMark(b, h.Incarnation, end)
	if err != nil {
		why = err
	}
	for _, r := range records {
		last, durable = r.Seq, max(durable, r.Durable)
		if err := fn(describeRecord(&segment{path: name}, r)); err != nil {
			return s, err
		}
	}
	if errors.Is(why, format.ErrNewer) {
		return s, fn(Record{Offset: end, Err: newer(name, end, why)})
	}
	if durable > last || len(records) == 0 {
		return s, fn(Record{Offset: end, Err: damage(&segment{path: name}, end, why)})
	}
	return s, nil
}

func describeRecord(s *segment, r found) Record {
	v := Record{Offset: r.off, Seq: r.Seq, Durable: r.Durable, Bytes: len(r.Body), Kind: fmt.Sprintf("kind %d", r.Kind)}
	rec, err := decode(s, r)
	if v.Err = err; err != nil {
		return v
	}
	switch r.Kind {
	case kindEntries:
		v.Kind, v.Entries = "entries", rec.entries
		if n := len(rec.entries); n > 0 {
			v.First, v.Last, v.Term = rec.entries[0].GetIndex(), rec.entries[n-1].GetIndex(), rec.entries[n-1].GetTerm()
		}
	case kindHardState:
		v.Kind, v.Term, v.Commit = "hard state", rec.hard.GetTerm(), rec.hard.GetCommit()
	case kindMarker:
		v.Kind, v.First, v.Term = "snapshot marker", rec.marker.Index, rec.marker.Term
	case kindMark:
		v.Kind = "mark"
	}
	return v
}
