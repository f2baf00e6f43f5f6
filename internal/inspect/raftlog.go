package inspect

import (
	"io"

	"openvstorage/arakoon/raftlog"
	"openvstorage/internal/disk/osdisk"
)

// RaftLogReport is what inspection finds in a segment of a raft log.
type RaftLogReport struct {
	Segment raftlog.Segment `json:"segment"`
	Records []RaftRecord    `json:"records"`
	Damage  Damage          `json:"damage"`
}

// RaftRecord is a record that verifies.
type RaftRecord struct {
	Offset  int64  `json:"offset"`
	Seq     uint64 `json:"seq"`
	Durable uint64 `json:"durable"`
	Kind    string `json:"kind"`
	First   uint64 `json:"first,omitempty"`
	Last    uint64 `json:"last,omitempty"`
	Term    uint64 `json:"term,omitempty"`
	Commit  uint64 `json:"commit,omitempty"`
	Bytes   int    `json:"bytes"`
}

// RaftLog verifies a segment of a raft log. An error says that the file is no such
// segment.
func RaftLog(file string) (*RaftLogReport, error) {
	r := &RaftLogReport{Records: []RaftRecord{}}
	var err error
	r.Segment, err = raftlog.Inspect(osdisk.New(), file, func(rec raftlog.Record) error {
		if rec.Err != nil {
			r.Damage = append(r.Damage, rec.Err.Error())
		} else {
			r.Records = append(r.Records, RaftRecord{rec.Offset, rec.Seq, rec.Durable, rec.Kind, rec.First, rec.Last, rec.Term, rec.Commit, rec.Bytes})
		}
		return nil
	})
	return r, err
}

// Write writes the report for people.
func (r *RaftLogReport) Write(w io.Writer) {
	row := table(w)
	row("segment", "%016x, %s", r.Segment.Number, human(uint64(r.Segment.Size)))
	row("cluster", "%s, member %d", r.Segment.Cluster, r.Segment.Member)
	row("life", "%d, generation %d", r.Segment.Life, r.Segment.Generation)
	row("incarnation", "%016x", r.Segment.Incarnation)
	row("verified", "%d records", len(r.Records))
	for _, rec := range r.Records {
		switch rec.Kind {
		case "entries":
			row("record", "seq %d, entries %d to %d, term %d, %d bytes", rec.Seq, rec.First, rec.Last, rec.Term, rec.Bytes)
		case "hard state":
			row("record", "seq %d, hard state, term %d, commit %d", rec.Seq, rec.Term, rec.Commit)
		case "snapshot marker":
			row("record", "seq %d, snapshot marker, index %d, term %d", rec.Seq, rec.First, rec.Term)
		default:
			row("record", "seq %d, %s, durable %d", rec.Seq, rec.Kind, rec.Durable)
		}
	}
	for _, text := range r.Damage {
		row("DAMAGE", "%s", text)
	}
}
