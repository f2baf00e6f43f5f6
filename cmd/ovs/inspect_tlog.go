package main

import (
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"openvstorage/tlog"
)

func (a *app) inspectTLog() *cobra.Command {
	return &cobra.Command{
		Use:   "tlog FILE",
		Short: "verify a TLog and list its entries",
		Args:  wants("FILE"),
		RunE: func(_ *cobra.Command, args []string) error {
			o, err := openObject(args[0])
			if err != nil {
				return err
			}
			defer o.Close()
			r, err := checkTLog(o, o.size)
			if err != nil {
				return fmt.Errorf("%s: %w", args[0], err)
			}
			if err := a.printShort(r, func(w io.Writer) { writeTLog(w, r) }); err != nil {
				return err
			}
			// One that is open may end anywhere; an object may not.
			if o.stored && !r.Sealed {
				return fmt.Errorf("%s: no good entry at offset %d, and no seal before", args[0], r.End)
			}
			return nil
		},
	}
}

// tlogReport is what inspection finds in a TLog.
type tlogReport struct {
	Name    string      `json:"name"`
	Header  tlog.Header `json:"header"`
	Sealed  bool        `json:"sealed"`
	End     int64       `json:"end"` // offset behind the last good entry
	Entries []tlogEntry `json:"entries"`
}

type tlogEntry struct {
	Offset   int64  `json:"offset"`
	Kind     string `json:"kind"`
	Seq      uint64 `json:"seq"`
	Addr     uint64 `json:"addr,omitempty"`
	Run      uint32 `json:"run,omitempty"`
	Location string `json:"location,omitempty"`
	Detail   string `json:"detail,omitempty"`
}

func checkTLog(f io.ReaderAt, size int64) (*tlogReport, error) {
	r := &tlogReport{Entries: []tlogEntry{}}
	var err error
	r.Header, r.End, r.Sealed, err = tlog.ScanAt(f, size, func(at int64, e tlog.Entry) error {
		line := tlogEntry{Offset: at, Kind: e.Kind.String(), Seq: e.Seq, Addr: e.Addr, Run: e.Run}
		switch e.Kind {
		case tlog.KindWrite:
			line.Location = e.Location.String()
		case tlog.KindSnapshot:
			s, err := e.Snapshot()
			if err != nil {
				return err
			}
			line.Detail = fmt.Sprintf("%q %s of %s", s.Name, s.ID, time.Unix(0, s.Created).UTC().Format(time.RFC3339))
		case tlog.KindRollback:
			line.Detail = "to " + e.Rollback().String()
		}
		r.Entries = append(r.Entries, line)
		return nil
	})
	if err != nil {
		return nil, err
	}
	r.Name = r.Header.ID.Name()
	return r, nil
}

func writeTLog(w io.Writer, r *tlogReport) {
	state := "open"
	if r.Sealed {
		state = "sealed"
	}
	fmt.Fprintf(w, "%s %s: vDisk %s, incarnation %016x, epoch %d, first seq %d\n",
		r.Name, state, r.Header.Volume, r.Header.Incarnation, r.Header.Epoch, r.Header.FirstSeq)
	fmt.Fprintln(w, "OFFSET\tSEQ\tKIND\tADDR\tRUN\tLOCATION")
	for _, e := range r.Entries {
		fmt.Fprintf(w, "%d\t%d\t%s\t%d\t%d\t%s%s\n", e.Offset, e.Seq, e.Kind, e.Addr, e.Run, e.Location, e.Detail)
	}
	fmt.Fprintf(w, "%d entries, good up to offset %d\n", len(r.Entries), r.End)
}
