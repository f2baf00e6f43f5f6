package datadir

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"golang.org/x/sys/unix"

	"openvstorage/internal/disk"
	"openvstorage/internal/disk/crashdisk"
	"openvstorage/internal/disk/faultdisk"
	"openvstorage/internal/disk/osdisk"
	"openvstorage/internal/format"
	"openvstorage/internal/generation"
)

func open(t *testing.T, dir string) (*Directory, error) {
	t.Helper()
	d, err := Open(osdisk.New(), dir)
	if err == nil {
		t.Cleanup(func() { d.Close() })
	}
	return d, err
}

func mustOpen(t *testing.T, dir string) *Directory {
	t.Helper()
	d, err := open(t, dir)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func TestMadeAndOpenedAgain(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "new", "data")
	first := mustOpen(t, dir)
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	second := mustOpen(t, dir)
	if first.ID != second.ID || !first.Created.Equal(second.Created) || first.ID == uuid.Nil {
		t.Errorf("made as %v of %v, opened as %v of %v", first.ID, first.Created, second.ID, second.Created)
	}
	info, err := os.Stat(dir)
	if err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("the directory's mode is %v, %v; want 0700", info.Mode().Perm(), err)
	}
}

func TestSecondHolderIsRefusedWithThePid(t *testing.T) {
	dir := t.TempDir()
	mustOpen(t, dir)
	_, err := open(t, dir)
	if !errors.Is(err, ErrInUse) || !strings.Contains(err.Error(), strconv.Itoa(os.Getpid())) {
		t.Errorf("a second Open says %v; want ErrInUse and pid %d", err, os.Getpid())
	}
}

func TestForeignDirectoryIsLeftAlone(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "letter.txt"), []byte("dear"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := open(t, dir); !errors.Is(err, ErrNotOvs) || !strings.Contains(err.Error(), "letter.txt") {
		t.Errorf("Open says %v; want ErrNotOvs and the file", err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 1 {
		t.Errorf("the directory holds %v, %v; want what was there", entries, err)
	}
}

func TestKilledFirstStartIsTakenUp(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{LockFile, draftFile} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("half"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	mustOpen(t, dir)
}

// One flipped bit anywhere is repaired from the other copy.
func TestFlippedBitIsRepaired(t *testing.T) {
	dir := t.TempDir()
	d := mustOpen(t, dir)
	d.Close()
	name := filepath.Join(dir, FormatFile)
	good, err := os.ReadFile(name)
	if err != nil || len(good) != FileSize {
		t.Fatalf("%d bytes, %v", len(good), err)
	}
	for _, at := range []int{0, 12, 63, 70, 2000, blockSize - 1, blockSize, blockSize + 9, FileSize / 2, FileSize - 1} {
		bad := bytes.Clone(good)
		bad[at] ^= 4
		if err := os.WriteFile(name, bad, 0o600); err != nil {
			t.Fatal(err)
		}
		again, err := open(t, dir)
		if err != nil {
			t.Errorf("bit flipped at %d: %v", at, err)
			continue
		}
		again.Close()
		if now, err := os.ReadFile(name); err != nil || !bytes.Equal(now, good) {
			t.Errorf("bit flipped at %d: not rewritten as it was (%v)", at, err)
		}
	}
}

func TestBothCopiesDamagedNamesTheFile(t *testing.T) {
	dir := t.TempDir()
	name := filepath.Join(dir, FormatFile)
	bad := Append(nil, Record{ID: uuid.New(), Created: time.Now()})
	bad[3] ^= 1
	bad[blockSize+100] ^= 1
	if err := os.WriteFile(name, bad, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := open(t, dir); !errors.Is(err, format.ErrCorrupt) || !strings.Contains(err.Error(), name) {
		t.Errorf("Open says %v; want ErrCorrupt and %s", err, name)
	}
}

// newer rewrites copy i as a later release would have written it.
func newer(b []byte, i int) []byte {
	b = bytes.Clone(b)
	c := b[i*blockSize : (i+1)*blockSize]
	binary.LittleEndian.PutUint16(c[10:], Version+1)
	binary.LittleEndian.PutUint16(c[12:], Version+1)
	binary.LittleEndian.PutUint32(c[60:], format.CRC(c[:60]))
	return b
}

func TestNewerFormatIsRefusedAndLeftAlone(t *testing.T) {
	good := Append(nil, Record{ID: uuid.New(), Created: time.Now(), Incarnation: 7})
	for i := range copies {
		dir := t.TempDir()
		name := filepath.Join(dir, FormatFile)
		written := newer(good, i)
		if err := os.WriteFile(name, written, 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := open(t, dir)
		if !errors.Is(err, format.ErrNewer) || !strings.Contains(err.Error(), dir) {
			t.Errorf("copy %d newer: Open says %v; want ErrNewer and the directory", i, err)
		}
		if now, err := os.ReadFile(name); err != nil || !bytes.Equal(now, written) {
			t.Errorf("copy %d newer: the record was changed (%v)", i, err)
		}
	}
}

var sample = Record{
	ID: uuid.MustParse("00112233-4455-6677-8899-aabbccddeeff"), Created: time.Unix(1_700_000_000, 5).UTC(), Incarnation: 0x0102030405060708,
	Generation: 9, Settled: 8, History: generation.History{{Number: 1, Start: 0x11}, {Number: 7, Start: 0x77}},
	Groups: []string{"abm", "nsm-0"}, Suspended: time.Unix(1_700_000_001, 0).UTC(), Life: 3,
}

// of returns what the format of a version keeps of the record.
func (r Record) of(version uint16) Record {
	if version < 3 {
		return Record{ID: r.ID, Created: r.Created, Incarnation: r.Incarnation}
	}
	r.Life = 0
	return r
}

// oldFile returns the file that versions 1 to 3 made.
func oldFile(r Record, version uint16) []byte {
	return edited(Append(nil, r.of(version)), func(b []byte) { b[10], b[12] = byte(version), byte(version) })
}

// edited changes both copies, and makes their CRCs right again.
func edited(b []byte, change func(b []byte)) []byte {
	b = bytes.Clone(b[:blockSize])
	change(b)
	binary.LittleEndian.PutUint32(b[60:], format.CRC(b[:60]))
	binary.LittleEndian.PutUint32(b[crcAt:], format.SeededCRC(binary.LittleEndian.Uint64(b[48:]), b[:crcAt]))
	return append(b, b...)
}

// A record that holds as much as one may.
func TestFullRecord(t *testing.T) {
	r := sample
	r.Groups, r.History = nil, nil
	for i := range GroupsMax {
		r.Groups = append(r.Groups, fmt.Sprintf("%0*d", GroupNameMax, i))
	}
	for i := range uint64(generation.HistoryMax) {
		r.History = append(r.History, generation.Mark{Number: ^uint64(0) - i, Start: ^i})
	}
	b := Append(nil, r)
	if got, old, err := Decode(b); err != nil || old || len(b) != FileSize || !reflect.DeepEqual(got, r) {
		t.Errorf("%d bytes, %v, %v, %+v", len(b), old, err, got)
	}
}

func TestChange(t *testing.T) {
	dir := t.TempDir()
	d := mustOpen(t, dir)
	was := d.Record()
	if err := d.Change(func(r *Record) { r.Generation, r.Groups, r.Life = 3, []string{"abm"}, 5 }); err != nil {
		t.Fatal(err)
	}
	if err := d.Change(func(r *Record) { r.Settled = 4 }); err == nil {
		t.Error("more is settled than was claimed")
	}
	if err := d.Change(func(r *Record) { r.Life = 4 }); err == nil {
		t.Error("an earlier life comes after a later one")
	}
	d.Close()
	r := mustOpen(t, dir).Record()
	if r.Generation != 3 || r.Life != 5 || r.Settled != 0 || !r.Made("abm") || r.Made("nsm-0") || r.ID != was.ID || !r.Created.Equal(was.Created) {
		t.Errorf("read back as %+v", r)
	}
}

// A change that fails before it takes the record's place changes nothing, and may be
// asked for again. After a failed rename or directory sync it is not known which record
// is on the disk, and nothing is written until the next start.
func TestFailedChange(t *testing.T) {
	for op, again := range map[faultdisk.Op]bool{
		faultdisk.Open: true, faultdisk.Write: true, faultdisk.Datasync: true, faultdisk.Rename: false, faultdisk.SyncDir: false,
	} {
		mem := crashdisk.New()
		fsys := faultdisk.New(mem)
		d, err := Open(fsys, "/data")
		if err != nil {
			t.Fatal(err)
		}
		claim := func(r *Record) { r.Generation++ }
		fsys.Inject(faultdisk.Rule{Ops: op, Times: 1, Err: unix.EIO})
		if err := d.Change(claim); !errors.Is(err, unix.EIO) || !strings.Contains(err.Error(), FormatFile) {
			t.Errorf("%v: %v", op, err)
		}
		if got := d.Record().Generation; got != 0 {
			t.Errorf("%v: generation %d", op, got)
		}
		if err := d.Change(claim); (err == nil) != again {
			t.Errorf("%v: the next change says %v", op, err)
		}
	}
}

// A directory of an older release becomes one of this release when it is
// opened: the older one must not serve it any more.
func TestUpgrade(t *testing.T) {
	fsys, dir := osdisk.New(), t.TempDir()
	name := filepath.Join(dir, FormatFile)
	for version := uint16(1); version < Version; version++ {
		r := sample.of(version)
		if err := os.WriteFile(name, oldFile(sample, version), 0o600); err != nil {
			t.Fatal(err)
		}
		d, err := Open(fsys, dir)
		if err != nil || !reflect.DeepEqual(d.Record(), r) {
			t.Fatalf("version %d: %+v, %v", version, d, err)
		}
		if err := d.Close(); err != nil {
			t.Fatal(err)
		}
		if b, err := os.ReadFile(name); err != nil || !bytes.Equal(b, Append(nil, r)) {
			t.Errorf("version %d: not rewritten: %v", version, err)
		}
	}
}

// Wherever the power is cut while a record of an older release is rewritten, the next
// start finds either record, whole.
func TestUpgradeCut(t *testing.T) {
	for _, op := range []faultdisk.Op{faultdisk.Open, faultdisk.Write, faultdisk.Datasync, faultdisk.Rename, faultdisk.SyncDir, 0} {
		mem := crashdisk.New()
		if err := errors.Join(mem.MkdirAll("/data", 0o700), mem.SyncDir("/")); err != nil {
			t.Fatal(err)
		}
		f, err := mem.OpenFile("/data/"+FormatFile, disk.Write|disk.Create, 0o600)
		if err == nil {
			_, err = f.WriteAt(oldFile(sample, 3), 0)
			err = errors.Join(err, f.Datasync(), f.Close(), mem.SyncDir("/data"))
		}
		if err != nil {
			t.Fatal(err)
		}
		fsys := faultdisk.New(mem)
		fsys.Inject(faultdisk.Rule{Ops: op, Err: unix.EIO})
		if d, err := Open(fsys, "/data"); err == nil {
			d.Close()
		}
		d, err := Open(mem.Kill(), "/data")
		if err != nil || !reflect.DeepEqual(d.Record(), sample.of(3)) {
			t.Errorf("%v fails: %v", op, err)
		}
	}
}

// FuzzDecode: no bytes make Decode panic, and what it accepts encodes to
// something that it accepts as the same.
func FuzzDecode(f *testing.F) {
	good := Append(nil, Record{ID: uuid.New(), Created: time.Unix(1, 2), Incarnation: 3})
	f.Add(good)
	f.Add(Append(nil, sample))
	f.Add(oldFile(sample, 2))
	f.Add(oldFile(sample, 3))
	f.Add(good[:blockSize])
	f.Add(good[:70])
	f.Add(newer(good, 1))
	f.Add([]byte(format.Magic))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, _, err := Decode(b)
		if err != nil {
			return
		}
		again, damaged, err := Decode(Append(nil, r))
		if err != nil || damaged || !reflect.DeepEqual(again, r) {
			t.Fatalf("%+v reads back as %+v, %v, %v", r, again, damaged, err)
		}
	})
}

// A directory that existed and was open to others is its owner's alone after Open, and
// so is what an older release made in it. A directory that belongs to somebody else, is
// in use, or is of a newer release is left as it is.
func TestOpenToOthers(t *testing.T) {
	mode := func(name string) os.FileMode {
		t.Helper()
		info, err := os.Stat(name)
		if err != nil {
			t.Fatal(err)
		}
		return info.Mode().Perm()
	}
	dir, fast := t.TempDir(), t.TempDir()
	must := func(errs ...error) {
		t.Helper()
		if err := errors.Join(errs...); err != nil {
			t.Fatal(err)
		}
	}
	must(os.Chmod(dir, 0o755))
	d := mustOpen(t, dir)
	if was := d.Was(); was != 0o755 || mode(dir) != 0o700 {
		t.Errorf("was %v, is %v", was, mode(dir))
	}
	for _, name := range []string{"arakoon/abm/log", "asd", "backend/x", "fast"} {
		must(os.MkdirAll(filepath.Join(dir, name), 0o755))
	}
	must(os.Remove(filepath.Join(dir, "fast")), os.Chmod(fast, 0o755), os.Symlink(fast, filepath.Join(dir, "buffer")))
	files := []string{"arakoon/abm/log/1", "backend/x/o", "buffer/sco", "attachments"}
	for _, name := range files {
		must(os.WriteFile(filepath.Join(dir, name), nil, 0o644))
	}
	got, err := d.Tighten()
	if err != nil || got.Failed != 0 || got.Names < 9 {
		t.Errorf("%+v, %v", got, err)
	}
	for _, name := range files {
		if m := mode(filepath.Join(dir, name)); m != 0o600 {
			t.Errorf("%s has mode %v", name, m)
		}
		if m := mode(filepath.Dir(filepath.Join(dir, name))); m != 0o700 {
			t.Errorf("the directory of %s has mode %v", name, m)
		}
	}
	if again, err := d.Tighten(); err != nil || again != (disk.Tightened{}) {
		t.Errorf("a second time: %+v, %v", again, err)
	}

	must(os.Chmod(dir, 0o755))
	if _, err := Open(osdisk.New(), dir); !errors.Is(err, ErrInUse) || mode(dir) != 0o755 {
		t.Errorf("in use: %v, mode %v", err, mode(dir))
	}
	other := t.TempDir()
	must(os.Chmod(other, 0o755), os.WriteFile(filepath.Join(other, "letter"), nil, 0o600))
	if _, err := Open(osdisk.New(), other); !errors.Is(err, ErrNotOvs) || mode(other) != 0o755 {
		t.Errorf("somebody else's: %v, mode %v", err, mode(other))
	}
}

// A mode that cannot be changed ends the start, and the error says what to do. If
// nobody else has rights anyway, the start goes on.
func TestModeThatStays(t *testing.T) {
	for _, errno := range []error{unix.EPERM, disk.ErrNotPrivate, unix.EIO} {
		fsys := faultdisk.New(crashdisk.New())
		if err := fsys.MkdirAll("/d", 0o700); err != nil {
			t.Fatal(err)
		}
		fsys.Inject(faultdisk.Rule{Ops: faultdisk.Private, Err: errno})
		if _, err := Open(fsys, "/d"); !errors.Is(err, errno) || !strings.Contains(err.Error(), "/d") {
			t.Errorf("%v: told as %v", errno, err)
		}
	}
}

// If a rename or a mount puts another directory in the place of one that is in use, the
// record of the other one is not written over. A record that is gone is made again.
func TestReplacedIsLeftAlone(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	first := mustOpen(t, dir)
	if err := os.Rename(dir, dir+".away"); err != nil {
		t.Fatal(err)
	}
	second := mustOpen(t, dir)
	was, err := os.ReadFile(filepath.Join(dir, FormatFile))
	if err != nil {
		t.Fatal(err)
	}
	beat := func(r *Record) { r.Generation++ }
	if err := first.Change(beat); !errors.Is(err, ErrReplaced) || !strings.Contains(err.Error(), dir) {
		t.Errorf("the change says: %v", err)
	}
	if now, err := os.ReadFile(filepath.Join(dir, FormatFile)); err != nil || !bytes.Equal(was, now) {
		t.Errorf("the other one's record was changed: %v", err)
	}
	if _, err := os.Stat(filepath.Join(dir, draftFile)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a draft was left with the other one: %v", err)
	}
	if err := os.Remove(filepath.Join(dir, FormatFile)); err != nil {
		t.Fatal(err)
	}
	if err := second.Change(beat); err != nil {
		t.Errorf("the record that was removed: %v", err)
	}
}

// TestOpenAs: a directory is made as the one of a record, and is that one from then on. One
// of another ID is refused, and keeps what it has.
func TestOpenAs(t *testing.T) {
	fs, id := crashdisk.New(), uuid.UUID{1}
	made, err := OpenAs(fs, "/data", Record{ID: id, Groups: []string{"abm"}, Life: 4, Suspended: time.Unix(5, 0).UTC()})
	if err != nil {
		t.Fatal(err)
	}
	r := made.Record()
	if r.ID != id || r.Incarnation == 0 || r.Created.IsZero() || r.Life != 4 || !r.Made("abm") || r.Suspended.IsZero() {
		t.Errorf("%+v", r)
	}
	if err := made.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenAs(fs, "/data", Record{ID: uuid.UUID{2}}); !errors.Is(err, ErrOther) {
		t.Errorf("another ID: %v", err)
	}
	again, err := OpenAs(fs, "/data", Record{ID: id, Life: 9})
	if err != nil {
		t.Fatal(err)
	}
	if got := again.Record(); got.Life != 4 || !got.Made("abm") || got.Incarnation != r.Incarnation {
		t.Errorf("%+v", got)
	}
	if err := again.Close(); err != nil {
		t.Error(err)
	}
	if _, err := OpenAs(fs, "/bad", Record{ID: id, Settled: 1}); err == nil {
		t.Error("a record that contradicts itself is taken")
	}
}
