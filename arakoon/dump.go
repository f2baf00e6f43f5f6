package arakoon

import (
	"fmt"
	"io"
	"path"
	"slices"

	"openvstorage/arakoon/raftlog"
	"openvstorage/arakoon/state"
	"openvstorage/internal/disk"

	pb "go.etcd.io/raft/v3/raftpb"
)

// Dump writes as text what the directory of a member holds, Options.Dir of a Node that is
// not open: the state, and then the log with its entries. Of each value the first
// valueMax bytes are shown, below 0 all of them. It changes nothing. What is damaged is
// named in the text where that is possible, and the dump goes on behind it; the error is of
// what ended it.
func Dump(fsys disk.FS, dir string, w io.Writer, valueMax int) error {
	if err := dumpStates(fsys, dir, w, valueMax); err != nil {
		return err
	}
	names, err := raftlog.Segments(fsys, path.Join(dir, "log"))
	if err != nil {
		return err
	}
	for _, name := range names {
		if _, err := fmt.Fprintf(w, "segment %s\n", name); err != nil {
			return err
		}
		s, err := raftlog.Inspect(fsys, name, func(r raftlog.Record) error { return dumpRecord(w, r, valueMax) })
		if err != nil {
			return fmt.Errorf("arakoon: dump %s: %w", name, err)
		}
		if _, err := fmt.Fprintf(w, "segment %d of member %d of cluster %v, life %d, generation %d\n", s.Number, s.Member, s.Cluster, s.Life, s.Generation); err != nil {
			return err
		}
	}
	return nil
}

// dumpStates dumps the state. Where a member has taken the state of another one and was not
// opened since, there may be several: all of them are shown, each under its name, and the
// one furthest on that the log leads on from is in use. One that is on its way out need not
// be whole.
func dumpStates(fsys disk.FS, dir string, w io.Writer, valueMax int) error {
	names, err := fsys.ReadDir(dir)
	if err != nil {
		return err
	}
	names = slices.DeleteFunc(names, func(name string) bool {
		_, taken := indexOf(statePrefix, name)
		_, prepared := indexOf(preparedPrefix, name)
		return name != stateName && !taken && !prepared
	})
	if len(names) == 0 {
		names = []string{stateName} // which the error is to name
	}
	for _, name := range names {
		of := state.Options{FS: fsys, Dir: path.Join(dir, name)}
		if len(names) == 1 {
			return state.Dump(of, w, valueMax)
		}
		if _, err := fmt.Fprintf(w, "state in %s\n", name); err != nil {
			return err
		}
		if err := state.Dump(of, w, valueMax); err != nil {
			if _, err := fmt.Fprintln(w, err); err != nil {
				return err
			}
		}
	}
	return nil
}

func dumpRecord(w io.Writer, r raftlog.Record, valueMax int) error {
	line := fmt.Sprintf("record %d: %s, %d bytes", r.Seq, r.Kind, r.Bytes)
	switch {
	case r.Err != nil:
		line = fmt.Sprintf("offset %d: %v", r.Offset, r.Err)
	case r.Commit > 0:
		line += fmt.Sprintf(", term %d, commit %d", r.Term, r.Commit)
	case r.Term > 0:
		line += fmt.Sprintf(", entries %d to %d, term %d", r.First, max(r.First, r.Last), r.Term)
	}
	if _, err := fmt.Fprintln(w, line); err != nil {
		return err
	}
	for _, e := range r.Entries {
		for _, text := range dumpEntry(e, valueMax) {
			if _, err := fmt.Fprintf(w, "  entry %d, term %d: %s\n", e.GetIndex(), e.GetTerm(), text); err != nil {
				return err
			}
		}
	}
	return nil
}

func dumpEntry(e *pb.Entry, valueMax int) []string {
	if e.GetType() != pb.EntryNormal {
		return []string{fmt.Sprintf("change of the members, %d bytes", len(e.GetData()))}
	}
	if len(e.GetData()) == 0 {
		return []string{"empty"}
	}
	lines, err := state.DescribeEntry(e.GetData(), valueMax)
	if err != nil {
		lines = append(lines, err.Error())
	}
	return lines
}
