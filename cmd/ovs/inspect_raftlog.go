package main

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"openvstorage/arakoon/raftlog"
	"openvstorage/internal/counted"
	"openvstorage/internal/disk/osdisk"
)

func (a *app) inspectRaftLog() *cobra.Command {
	return &cobra.Command{
		Use:   "raftlog FILE",
		Short: "verify a segment of a raft log: header, every record",
		Long: `ovs inspect raftlog verifies a segment of an Arakoon group's log
(DIR/arakoon/GROUP/log/*.raft). Damage behind the last record that is known to have
been synced is what a power cut leaves, and not told.`,
		Args: wants("FILE"),
		RunE: func(_ *cobra.Command, args []string) error {
			r := raftReport{Records: []raftRecord{}}
			var err error
			r.Segment, err = raftlog.Inspect(osdisk.New(), args[0], func(rec raftlog.Record) error {
				if rec.Err != nil {
					r.Damage = append(r.Damage, rec.Err.Error())
				} else {
					r.Records = append(r.Records, raftRecord{rec.Offset, rec.Seq, rec.Durable, rec.Kind, rec.First, rec.Last, rec.Term, rec.Commit, rec.Bytes})
				}
				return nil
			})
			if err != nil {
				return err
			}
			if err := a.printShort(r, func(w io.Writer) { writeRaftLog(w, r) }); err != nil {
				return err
			}
			if len(r.Damage) > 0 {
				return fmt.Errorf("%s: %s, the first: %s", args[0], counted.Of(len(r.Damage), "fault", "faults"), r.Damage[0])
			}
			return nil
		},
	}
}

// raftReport is what inspection finds in a segment of a raft log.
type raftReport struct {
	Segment raftlog.Segment `json:"segment"`
	Records []raftRecord    `json:"records"`
	Damage  []string        `json:"damage"`
}

type raftRecord struct {
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

func writeRaftLog(w io.Writer, r raftReport) {
	row := func(name, format string, args ...any) {
		fmt.Fprintf(w, "%s\t%s\n", name, fmt.Sprintf(format, args...))
	}
	row("segment", "%016x, %s", r.Segment.Number, human(uint64(r.Segment.Size)))
	row("cluster", "%s, member %d", r.Segment.Cluster, r.Segment.Member)
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
