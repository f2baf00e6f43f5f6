// Package datadir is the data directory: the one directory that holds everything of an
// `ovs up`. One process at a time claims it. It carries a record of its format. If it
// is not ours, or was written by a newer release, it is never touched (promise P7).
package datadir

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/google/uuid"

	"openvstorage/internal/disk"
	"openvstorage/internal/format"
)

// Names in a data directory that belong to this package.
const (
	FormatFile = "ovs.format" // the directory's record
	LockFile   = "lock"       // held by the process that uses the directory
	draftFile  = FormatFile + ".new"
)

// Errors of Open that callers match with errors.Is. For a newer format the error is
// format.ErrNewer, for a damaged record format.ErrCorrupt.
var (
	ErrInUse = errors.New("in use")
	// ErrInDoubt is matched by the error of Change if it is not known which of the two
	// records, the old or the new one, is on the disk.
	ErrInDoubt = errors.New("not known to be written")
	ErrNotOvs  = errors.New("not an ovs data directory")
	// ErrOther is matched by the error of OpenAs for a directory of another ID.
	ErrOther = errors.New("another data directory")
	// ErrReplaced is matched by the error of Change if another data directory lies now
	// where this one was.
	ErrReplaced = errors.New("was replaced while it was in use")
)

// Directory is a claimed data directory. Its methods are safe for concurrent use.
type Directory struct {
	Path    string
	ID      uuid.UUID // drawn when the directory was made; never changes
	Created time.Time
	fs      disk.FS
	was     fs.FileMode

	held struct { // what says that the directory is this one
		sync.Mutex
		locks  []io.Closer // the last one is that of file
		file   fs.FileInfo // the lock
		dir    fs.FileInfo
		older  error // what the last Check has found in the record
		closed bool
	}

	mu     sync.Mutex
	record Record
	failed error // a change of which nobody knows whether it is on the disk
}

// Open claims the directory at path. It makes the directory if it is absent, and fills
// it if it is empty. It refuses a directory that another process holds (ErrInUse), one
// that holds something else (ErrNotOvs) and one that a newer release wrote
// (format.ErrNewer), and leaves all of these as they are. If one copy of the record is
// damaged, Open rewrites it from the other copy. It rewrites the record of an older
// release in the format of this one. Everything that Open made is durable on return.
// Other users then have no rights to the directory, whatever its mode was.
func Open(fsys disk.FS, path string) (*Directory, error) {
	return openWith(fsys, path, newRecord)
}

// OpenAs is Open of a directory that is to be the one of a record: of its ID, and with what
// the record says, if it is made now. A directory of another ID is refused with ErrOther, and
// one of that ID keeps its own record.
func OpenAs(fsys disk.FS, path string, r Record) (*Directory, error) {
	d, err := openWith(fsys, path, func() (Record, error) {
		fresh, err := newRecord()
		r.Created, r.Incarnation = fresh.Created, fresh.Incarnation
		return r, errors.Join(err, r.validate())
	})
	if err == nil && d.ID != r.ID {
		err = fmt.Errorf("data directory %s is %w: %s, and %s is wanted", path, ErrOther, d.ID, r.ID)
		return nil, errors.Join(err, d.Close())
	}
	return d, err
}

func openWith(fsys disk.FS, path string, fresh func() (Record, error)) (*Directory, error) {
	if err := disk.MakeDir(fsys, path, 0o700); err != nil {
		return nil, fmt.Errorf("make data directory: %w", err)
	}
	// Looked at before locking, so that no lock file is left in a directory
	// that is somebody else's; and again below, under the lock.
	if err := checkOurs(fsys, path); err != nil {
		return nil, err
	}
	lock, err := fsys.Lock(filepath.Join(path, LockFile))
	if errors.Is(err, disk.ErrLocked) {
		return nil, fmt.Errorf("data directory %s is %w by another ovs up: %w; stop that one first, or use another --data", path, ErrInUse, err)
	}
	if err != nil {
		return nil, fmt.Errorf("lock data directory %s: %w", path, err)
	}
	r, err := claim(fsys, path, fresh)
	if err != nil {
		lock.Close()
		return nil, err
	}
	was, err := makePrivate(fsys, path)
	if err != nil {
		lock.Close()
		return nil, err
	}
	d := &Directory{Path: path, ID: r.ID, Created: r.Created, fs: fsys, was: was, record: r}
	d.held.locks = []io.Closer{lock}
	if d.held.file, err = fsys.Stat(filepath.Join(path, LockFile)); err == nil {
		d.held.dir, err = fsys.Stat(path)
	}
	if err != nil {
		lock.Close()
		return nil, fmt.Errorf("data directory %s: %w", path, err)
	}
	return d, nil
}

// Record returns what ovs.format says. The caller must not change the slices.
func (d *Directory) Record() Record {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.record
}

// Change changes the record. The change is durable when Change returns nil. If the new
// record could not be written to its draft, nothing has changed. If the step failed
// that puts the draft in the place of the old record, either may be on the disk
// (ErrInDoubt): every later Change fails with the same error, and the next start finds
// out. If another data directory lies at the path now, which was moved or mounted there
// meanwhile, nothing is changed (ErrReplaced).
func (d *Directory) Change(change func(*Record)) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.failed != nil {
		return fmt.Errorf("%s is %w, and is not tried again until the next start: %w", filepath.Join(d.Path, FormatFile), ErrInDoubt, d.failed)
	}
	r := d.record
	r.Groups, r.History = slices.Clone(r.Groups), slices.Clone(r.History)
	change(&r)
	err := r.validate()
	if err == nil && r.Life < d.record.Life {
		err = fmt.Errorf("life %d comes after life %d", r.Life, d.record.Life)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", filepath.Join(d.Path, FormatFile), err)
	}
	if err := d.ours(); err != nil {
		return err
	}
	if err := draft(d.fs, d.Path, r); err != nil {
		return explainWrite(d.Path, err)
	}
	if d.failed = install(d.fs, d.Path); d.failed != nil {
		return fmt.Errorf("%w: %w", ErrInDoubt, explainWrite(d.Path, d.failed))
	}
	d.record = r
	return nil
}

// ours returns an error if the record on the disk must not be written over: it belongs
// to another directory, is of an older copy of this one, or cannot be read. A record
// that is gone or damaged may be replaced: nothing says that it is not ours.
func (d *Directory) ours() error {
	if err := d.here(); err != nil {
		return err
	}
	there, _, err := read(d.fs, filepath.Join(d.Path, FormatFile))
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, format.ErrCorrupt):
		return nil
	case err != nil:
		return explainWrite(d.Path, err)
	}
	return d.sameRecord(there)
}

// Close gives the directory up. Nothing in it may be in use any more.
func (d *Directory) Close() error {
	d.held.Lock()
	defer d.held.Unlock()
	d.held.closed = true
	var errs []error
	for _, lock := range d.held.locks {
		errs = append(errs, lock.Close())
	}
	d.held.locks = nil
	return errors.Join(errs...)
}

// claim reads the record, or makes it, under the lock.
func claim(fsys disk.FS, path string, fresh func() (Record, error)) (Record, error) {
	if err := checkOurs(fsys, path); err != nil {
		return Record{}, err
	}
	name := filepath.Join(path, FormatFile)
	r, old, err := read(fsys, name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if r, err = fresh(); err != nil {
			return Record{}, err
		}
		return r, write(fsys, path, r)
	case err != nil:
		return Record{}, err
	case old:
		return r, write(fsys, path, r)
	}
	return r, nil
}

// checkOurs refuses a directory that has no record and holds something else.
func checkOurs(fsys disk.FS, path string) error {
	names, err := fsys.ReadDir(path)
	if err != nil {
		return fmt.Errorf("read data directory: %w", err)
	}
	if slices.Contains(names, FormatFile) {
		return nil
	}
	for _, name := range names {
		switch name {
		case LockFile, draftFile, "lost+found": // a first start that was killed; a fresh file system
		default:
			return fmt.Errorf("%s is %w: it has no %s and is not empty (it holds %q); give --data an empty or a new directory", path, ErrNotOvs, FormatFile, name)
		}
	}
	return nil
}

func newRecord() (Record, error) {
	var incarnation [8]byte
	if _, err := rand.Read(incarnation[:]); err != nil {
		return Record{}, err
	}
	id, err := uuid.NewRandom()
	if err != nil {
		return Record{}, err
	}
	return Record{ID: id, Created: time.Now().UTC(), Incarnation: binary.LittleEndian.Uint64(incarnation[:])}, nil
}

// read returns the record, and whether a copy of it needs to be rewritten.
func read(fsys disk.FS, name string) (r Record, old bool, err error) {
	f, err := fsys.OpenFile(name, 0, 0)
	if err != nil {
		return Record{}, false, err
	}
	defer f.Close()
	buf := make([]byte, FileSize+1) // one more, to see a file that is too long
	n, err := f.ReadAt(buf, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return Record{}, false, fmt.Errorf("read %s: %w", name, err)
	}
	r, old, err = Decode(buf[:n])
	if err != nil {
		return Record{}, false, explain(name, err)
	}
	return r, old, nil
}

// explain adds the file and what to do to an error of Decode.
func explain(name string, err error) error {
	if errors.Is(err, format.ErrNewer) {
		return fmt.Errorf("data directory %s: %s: %w; nothing was changed: use that release", filepath.Dir(name), FormatFile, err)
	}
	return fmt.Errorf("%s: %w; restore this file from a copy of the directory: nothing was changed", name, err)
}

// write puts a whole new record in place of what is there, durably.
func write(fsys disk.FS, path string, r Record) error {
	err := draft(fsys, path, r)
	if err == nil {
		err = install(fsys, path)
	}
	if err == nil {
		// The name of the directory itself, which a killed start may have made.
		err = disk.SyncName(fsys, path)
	}
	return explainWrite(path, err)
}

// draft writes a record beside the one that is there, which stays as it is.
func draft(fsys disk.FS, path string, r Record) error {
	f, err := fsys.OpenFile(filepath.Join(path, draftFile), disk.Write|disk.Create|disk.Truncate, 0o600)
	if err != nil {
		return err
	}
	_, err = f.WriteAt(Append(nil, r), 0)
	if err == nil {
		err = f.Datasync()
	}
	return errors.Join(err, f.Close())
}

// install puts the draft in place of the record. After an error either may be
// the one that a restart finds.
func install(fsys disk.FS, path string) error {
	if err := fsys.Rename(filepath.Join(path, draftFile), filepath.Join(path, FormatFile)); err != nil {
		return err
	}
	return fsys.SyncDir(path)
}

func explainWrite(path string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("write %s: %w", filepath.Join(path, FormatFile), err)
}
