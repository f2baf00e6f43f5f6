package arakoon

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"

	"openvstorage/arakoon/raftlog"
	"openvstorage/arakoon/state"
	"openvstorage/internal/disk"

	"github.com/google/uuid"
	pb "go.etcd.io/raft/v3/raftpb"
)

// Backup writes a backup of the group to w while the group goes on, and returns the
// revision that it is of: at the leader one that has all that was answered before the
// call, at other members what they have applied. It reads Options.ScanBytes a second. A
// backup that was not written to its end is refused by state.Verify and Restore. Nothing
// here makes w durable. Close waits for Backup, so a Write of w must return.
func (i ImageCalls) Backup(ctx context.Context, w io.Writer) (revision uint64, err error) {
	m, err := i.Moment(ctx)
	if err != nil {
		return 0, err
	}
	err = m.Backup(ctx, w)
	return m.Revision(), errors.Join(err, m.Close())
}

// restoreGap is how many revisions a restored group leaves out: so many may have been given
// out after the backup, as revisions and as fences of leases, and none is given out again.
const (
	restoreGap   = 1 << 40
	restoreLives = 1 << 20 // of one backup whose revisions are kept apart
)

// ErrExists: there is a member already where one is to be restored.
var ErrExists = errors.New("arakoon: a member exists there")

// Restore makes a new group of one member, opt.Member, of a backup. Open opens it. The life
// of the group is opt.Life, which must be later than that of the backup; 0 is the next one.
// The cluster is opt.Cluster, or if that is zero the backup's. Nothing may be at opt.Dir,
// nor its marks beside it; if there is something the error is ErrExists, and nothing is
// changed. One process at a time may restore there.
//
// The order of durable steps. All is made under other names, DIR.restoring and
// DIR.restoring.marks; then the directory gets its name, and then the marks theirs. A
// directory without its marks is refused by Open (rule P8), so there is no member before the
// last step. After a power cut Restore is called again with the same backup: before the
// first rename it begins anew, between the two it makes the second.
func Restore(opt Options, backup io.Reader) (state.BackupInfo, error) {
	return RestoreChanged(opt, backup, nil)
}

// RestoreChanged is Restore of a backup with changes: numbers, for one, that may have been
// given out since, and are on disks. They are made before there is a member. nil: none.
func RestoreChanged(opt Options, backup io.Reader, change *state.Change) (state.BackupInfo, error) {
	opt = opt.withDefaults()
	r := restorer{opt: opt, dir: opt.Dir + ".restoring", change: withNobodyInSync(change)}
	info, err := r.restore(backup)
	if err != nil {
		return info, fmt.Errorf("arakoon: restore %s: %w", opt.Dir, err)
	}
	return info, nil
}

// withNobodyInSync is a change after which no other member is in sync: there is none.
func withNobodyInSync(change *state.Change) *state.Change {
	if change == nil {
		change = new(state.Change)
	}
	each := change.Each
	return &state.Change{Set: change.Set, Each: func(key, value []byte) ([]byte, error) {
		switch {
		case bytes.Equal(key, syncedKey), bytes.Equal(key, intendedKey):
			return appendSynced(nil, nil), nil
		case each != nil:
			return each(key, value)
		}
		return value, nil
	}}
}

type restorer struct {
	opt    Options
	dir    string // where all is made
	change *state.Change
}

func (r *restorer) restore(backup io.Reader) (info state.BackupInfo, err error) {
	var there [4]bool
	for i, name := range []string{r.opt.Dir, r.opt.Dir + ".marks", r.dir, r.dir + ".marks"} {
		if there[i], err = exists(r.opt.FS, name); err != nil {
			return info, err
		}
	}
	if there[0] && !there[1] && !there[2] && there[3] {
		return r.finish(backup)
	}
	if there[0] || there[1] {
		return info, fmt.Errorf("%w; restore into another directory, or move both %s and %s.marks away", ErrExists, r.opt.Dir, r.opt.Dir)
	}
	// What is there under our own names never became a member.
	if err := errors.Join(r.opt.FS.RemoveAll(r.dir), r.opt.FS.RemoveAll(r.dir+".marks")); err != nil {
		return info, err
	}
	if err := r.opt.FS.MkdirAll(r.dir, 0o700); err != nil {
		return info, err
	}
	if info, err = r.makeState(backup); err != nil {
		return info, err
	}
	if err := r.makeLog(info); err != nil {
		return info, err
	}
	for _, dir := range []string{r.dir, path.Dir(r.dir)} {
		if err := r.opt.FS.SyncDir(dir); err != nil {
			return info, err
		}
	}
	if err := r.rename(r.dir, r.opt.Dir); err != nil {
		return info, err
	}
	return info, r.rename(r.dir+".marks", r.opt.Dir+".marks")
}

func exists(fsys disk.FS, name string) (bool, error) {
	_, err := fsys.Stat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

func (r *restorer) rename(from, to string) error {
	if err := r.opt.FS.Rename(from, to); err != nil {
		return err
	}
	return r.opt.FS.SyncDir(path.Dir(to))
}

// begin says where the log of the new group begins.
func (r *restorer) begin(i state.BackupInfo) (state.Position, error) {
	if r.opt.Life == 0 {
		r.opt.Life = i.Life + 1
	}
	if r.opt.Cluster == uuid.Nil {
		r.opt.Cluster = i.Cluster
	}
	if r.opt.Life <= i.Life {
		return state.Position{}, fmt.Errorf("the backup is of life %d, and the restored group is to be of life %d: it needs a later one", i.Life, r.opt.Life)
	}
	// An earlier restore of the same backup has a life of its own, and revisions.
	gap := restoreGap * min(r.opt.Life-i.Life, restoreLives)
	return state.Position{Index: i.Index + gap, Term: i.Term, Conf: &pb.ConfState{Voters: []uint64{r.opt.Member}}}, nil
}

func (r *restorer) makeState(backup io.Reader) (state.BackupInfo, error) {
	if r.opt.Member == 0 {
		return state.BackupInfo{}, errors.New("member 0 is no member")
	}
	of := state.Options{
		FS: r.opt.FS, Dir: path.Join(r.dir, "state"), Member: r.opt.Member, Generation: r.opt.Generation,
		CacheBytes: r.opt.StateCacheBytes, MemTableBytes: r.opt.MemTableBytes,
	}
	return state.Restore(of, backup, func(i state.BackupInfo, of *state.Options) (err error) {
		of.Begin, err = r.begin(i)
		of.Life, of.Cluster = r.opt.Life, r.opt.Cluster
		return err
	}, r.change)
}

func (r *restorer) makeLog(i state.BackupInfo) error {
	at, err := r.begin(i)
	if err != nil {
		return err
	}
	log, err := raftlog.Open(raftlog.Options{
		FS: r.opt.FS, Dir: path.Join(r.dir, "log"), Marks: r.dir + ".marks", Cluster: r.opt.Cluster, Member: r.opt.Member,
		SegmentBytes: r.opt.SegmentBytes, Begin: raftlog.Marker{Index: at.Index, Term: at.Term, Conf: at.Conf}, Life: r.opt.Life, Generation: r.opt.Generation,
	})
	if err != nil {
		return err
	}
	// Without it the member's first term would be behind that of the entry that the log
	// begins behind.
	err = log.Append(raftlog.Round{HardState: &pb.HardState{Term: new(at.Term), Vote: new(uint64(0)), Commit: new(at.Index)}})
	if err == nil {
		log.StateDurable(at.Index)
	}
	return errors.Join(err, log.Close())
}

// finish goes on where a power cut ended Restore between its two last steps.
func (r *restorer) finish(backup io.Reader) (state.BackupInfo, error) {
	info, err := state.Verify(backup)
	if err != nil {
		return info, err
	}
	want, err := r.begin(info)
	if err != nil {
		return info, err
	}
	at, err := state.Peek(state.Options{FS: r.opt.FS, Dir: path.Join(r.opt.Dir, "state")})
	if err != nil {
		return info, err
	}
	if at.Index != want.Index || at.Term != want.Term {
		return info, fmt.Errorf("%w: it is at revision %d, and would be at %d if it had been restored from this backup of revision %d", ErrExists, at.Index, want.Index, info.Index)
	}
	return info, r.rename(r.dir+".marks", r.opt.Dir+".marks")
}
