package guest_test

import (
	"bytes"
	"crypto/md5"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"openvstorage/scripts/guest"
)

// TestReadLog: a log written by hand, and the same with its parts spoiled.
func TestReadLog(t *testing.T) {
	log := make([]byte, 7*512)
	put := func(at int, words ...uint64) {
		for i, w := range words {
			binary.LittleEndian.PutUint64(log[at+8*i:], w)
		}
	}
	put(0, 0x6a736677736872, 1, 4, 512)
	put(512, 8, 2, guest.LogFUA, 0) // two sectors at 4096
	copy(log[1024:], "written")
	put(4*512, 0, 0, guest.LogMark, 5)
	copy(log[4*512+32:], "mark!")
	put(5*512, 16, 1000, guest.LogDiscard, 0)
	put(6*512, 0, 0, guest.LogFlush, 0)
	var got []string
	read := func() error {
		got = nil
		return guest.ReadLog(bytes.NewReader(log), func(e guest.LogEntry) error {
			got = append(got, fmt.Sprint(e.Offset, e.Length, e.Flags, e.Mark, string(bytes.TrimRight(e.Data, "\x00"))))
			return nil
		})
	}
	must(t, read())
	want := []string{"4096 1024 2written", "0 0 8mark!", "8192 512000 4", "0 0 1"}
	if strings.Join(got, ";") != strings.Join(want, ";") {
		t.Errorf("%q, want %q", got, want)
	}
	for at, b := range map[int]byte{0: 1, 8: 2, 24: 7, 16: 5, 512 + 12: 1, 4*512 + 25: 9} {
		was := log[at]
		log[at] = b
		if read() == nil {
			t.Errorf("a log with byte %d as %d is read", at, b)
		}
		log[at] = was
	}
}

// TestLogWrites: the kernel's client below dm-log-writes. What ext4 wrote is replayed
// on another vDisk. At each flush that vDisk is cloned: the clone is what a power cut
// at that flush leaves. The clone's journal is replayed, then nothing is left to mend,
// and the files that were synced are there. In the end both vDisks are the same.
func TestLogWrites(t *testing.T) {
	s := up(t)
	const size = 128 << 20
	s.ovs("vdisk", "create", "disk", "--size", fmt.Sprint(size))
	s.ovs("vdisk", "create", "replay", "--size", fmt.Sprint(size))
	log, err := os.Create(filepath.Join(s.temp, "log"))
	must(t, err)
	defer log.Close()
	must(t, log.Truncate(1<<30))
	block := "driver=file,node-name=disk,filename=" + log.Name()
	s.done(s.kernel(guest.Config{Step: "logwrites", Block: block}), "logwrites")

	replay, err := os.OpenFile(filepath.Join(s.mount, "replay.raw"), os.O_RDWR, 0)
	must(t, err)
	defer replay.Close()
	marks, checks, made := map[string]string{}, 0, false
	must(t, guest.ReadLog(log, func(e guest.LogEntry) error {
		switch {
		case e.Mark == "mkfs":
			made = true
		case e.Mark != "":
			if name, sum, ok := strings.Cut(e.Mark, ":"); ok {
				marks[name] = sum
			}
			return nil
		case e.Flags&guest.LogDiscard != 0:
			return unix.Fallocate(int(replay.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, e.Offset, e.Length)
		}
		if _, err := replay.WriteAt(e.Data, e.Offset); err != nil {
			return err
		}
		if made && e.Flags&(guest.LogFlush|guest.LogFUA) != 0 {
			checks++
			s.afterPowerCut(replay.Name(), marks)
		}
		return nil
	}))
	t.Logf("%d power cuts, %d files synced", checks, len(marks))
	if checks < 20 || len(marks) != 20 {
		t.Errorf("the log has %d flushes and %d marks", checks, len(marks))
	}
	disk, err := os.Open(filepath.Join(s.mount, "disk.raw"))
	must(t, err)
	defer disk.Close()
	a, b := make([]byte, 1<<20), make([]byte, 1<<20)
	for at := int64(0); at < size; at += int64(len(a)) {
		_, errA := io.ReadFull(io.NewSectionReader(disk, at, int64(len(a))), a)
		_, errB := io.ReadFull(io.NewSectionReader(replay, at, int64(len(b))), b)
		must(t, errA)
		must(t, errB)
		if !bytes.Equal(a, b) {
			t.Errorf("the vDisk has not what was written, between %d and %d", at, at+int64(len(a)))
		}
	}
}

// afterPowerCut checks a clone of a file of the mount.
func (s *system) afterPowerCut(name string, files map[string]string) {
	s.t.Helper()
	clone := filepath.Join(s.mount, "clone.raw")
	for _, args := range [][]string{{"cp", name, clone}, {"e2fsck", "-E", "journal_only", "-y", clone}, {"e2fsck", "-fn", clone}} {
		if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
			s.t.Fatalf("%q: %v\n%s", args, err, out)
		}
	}
	for file, want := range files {
		out, err := exec.Command("debugfs", "-R", "cat "+file, clone).Output()
		must(s.t, err)
		if sum := md5.Sum(out); hex.EncodeToString(sum[:]) != want {
			s.t.Errorf("%s was synced with sum %s and has %x", file, want, sum)
		}
	}
	must(s.t, os.Remove(clone))
}
