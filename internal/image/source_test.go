package image

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"golang.org/x/sys/unix"

	"openvstorage/internal/naming"
	"openvstorage/internal/size"
)

// TestSourceThatChanges: an image that is written while it is read is of no one
// moment, whether it shrinks, grows, or stays as long as it was.
func TestSourceThatChanges(t *testing.T) {
	for name, c := range map[string]struct {
		sparse bool
		change func(f *os.File) error
		want   string
	}{
		"shrinks":           {false, func(f *os.File) error { return f.Truncate(pieceSize) }, "changed while it was read: it had 4194304 bytes, and has 1048576"},
		"shrinks in a hole": {true, func(f *os.File) error { return f.Truncate(2 * pieceSize) }, "changed while it was read: it had 4194304 bytes, and has 2097152"},
		"is emptied":        {false, func(f *os.File) error { return f.Truncate(0) }, "and has 0"},
		"grows":             {false, func(f *os.File) error { return f.Truncate(8 * pieceSize) }, "and has 8388608"},
		"is written": {false, func(f *os.File) error {
			_, err := f.WriteAt([]byte("new"), 0)
			then := time.Now().Add(time.Minute) // clocks of file systems are coarse
			return errors.Join(err, os.Chtimes(f.Name(), then, then))
		}, "was written while it was read"},
		"stays": {true, func(*os.File) error { return nil }, ""},
	} {
		path := filepath.Join(t.TempDir(), "image.raw")
		f, err := os.Create(path)
		if err != nil {
			t.Fatal(err)
		}
		data := make([]byte, 4*pieceSize)
		if c.sparse {
			data = data[:pieceSize]
		}
		data[0] = 1
		if _, err := f.Write(data); err != nil || f.Truncate(4*pieceSize) != nil {
			t.Fatal(err)
		}
		s, err := Open(t.Context(), path, Options{})
		if err != nil {
			t.Fatal(err)
		}
		changed := false
		err = s.each(t.Context(), func(int64, []byte) error {
			if changed {
				return nil
			}
			changed = true
			return c.change(f)
		})
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("an image that %s: %v", name, err)
		}
		s.Close()
		f.Close()
	}
}

// TestWaitForPipeIsCancelled: neither the open of a pipe that nobody writes to nor
// the read of it holds a signal up.
func TestWaitForPipeIsCancelled(t *testing.T) {
	path := filepath.Join(t.TempDir(), "pipe")
	if err := unix.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	stopped := errors.New("stopped")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(stopped)
	if _, err := Open(ctx, path, Options{}); !errors.Is(err, stopped) {
		t.Errorf("open: %v", err)
	}
	writer, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer writer.Close()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	s := &Source{File: f, name: path}
	if err := s.openPipe(ctx); !errors.Is(err, stopped) {
		t.Errorf("first read: %v", err)
	}
	if err := s.each(ctx, func(int64, []byte) error { return nil }); !errors.Is(err, stopped) {
		t.Errorf("read: %v", err)
	}
}

func TestImportingName(t *testing.T) {
	long := strings.Repeat("d", 200) + "/"
	for name, want := range map[string]string{
		"a": "a.importing", "team/a": "team/a.importing",
		strings.Repeat("x", 245):                               strings.Repeat("x", 245) + ".importing",
		strings.Repeat("x", 246):                               "",
		strings.Repeat("x", 255):                               "",
		strings.Repeat("é", 127):                               "",
		strings.Repeat(long, 5) + strings.Repeat("y", 19):      "",
		strings.Repeat(long, 5) + strings.Repeat("漢", 6) + "y": "",
		strings.Repeat("e/", 511) + "yz":                       "",
	} {
		got := importingName(name)
		if err := naming.Check(got); naming.Check(name) != nil || err != nil || !utf8.ValidString(got) || !strings.HasSuffix(got, importing) || want != "" && got != want {
			t.Errorf("%q is imported as %q: %v", name, got, err)
		}
	}
	if importingName(strings.Repeat("x", 250)+"1") == importingName(strings.Repeat("x", 250)+"2") {
		t.Error("two vDisks are imported under one name")
	}
}

// TestPromised: what an image says about its own length, and that nothing in it
// makes that fail.
func TestPromised(t *testing.T) {
	for _, c := range []struct {
		name string
		put  map[int]string
		want int64
		what string
	}{
		{"zeros", nil, 0, ""},
		{"a partition", map[int]string{510: "\x55\xaa", 450: "\x83", 454: "\x08", 458: "\x10"}, 24 * 512, "partition table"},
		{"a boot sector of something else", map[int]string{510: "\x55\xaa", 446: "\x03", 450: "\x83", 454: "\x08", 458: "\x10"}, 0, ""},
		{"a partition, and what was there before", map[int]string{0: "XFSB\x00\x00\x10\x00\x00\x00\x00\x00\x00\x00\x01\x07", 510: "\x55\xaa", 450: "\x83", 454: "\x08", 458: "\x10"}, 24 * 512, "partition table"},
		{"a GPT", map[int]string{510: "\x55\xaa", 450: "\xee", 512: "EFI PART", 544: "\x63"}, 100 * 512, "partition table"},
		{"a GPT in sectors of 4 KiB", map[int]string{510: "\x55\xaa", 450: "\xee", 4096: "EFI PART", 4128: "\x63"}, 100 * 4096, "partition table"},
		{"a GPT of nonsense", map[int]string{510: "\x55\xaa", 450: "\xee", 512: "EFI PART", 551: "\xff"}, 0, ""},
		{"ext4", map[int]string{1080: "\x53\xef", 1048: "\x02", 1028: "\x0a"}, 40960, "file system"},
		{"ext4 of 64 bits", map[int]string{1080: "\x53\xef", 1048: "\x02", 1028: "\x0a", 1120: "\x80", 1360: "\x01"}, (1<<32 + 10) * 4096, "file system"},
		{"ext4 of 32 bits with something there", map[int]string{1080: "\x53\xef", 1048: "\x02", 1028: "\x0a", 1360: "\x01"}, 40960, "file system"},
		{"ext4 of nonsense", map[int]string{1080: "\x53\xef", 1048: "\xc8", 1028: "\x0a"}, 0, ""},
		{"XFS", map[int]string{0: "XFSB\x00\x00\x10\x00\x00\x00\x00\x00\x00\x00\x00\x07"}, 7 * 4096, "file system"},
		{"XFS of nonsense", map[int]string{0: "XFSB\x00\x00\x10\x00\xff\xff\x00\x00\x00\x00\x00\x07"}, 0, ""},
		{"Btrfs", map[int]string{64<<10 + 64: "_BHRfS_M", 64<<10 + 209: "\x00\x00\x80\x0c"}, 200 << 20, "file system"},
		{"Btrfs of nonsense", map[int]string{64<<10 + 64: "_BHRfS_M", 64<<10 + 216: "\xff"}, 0, ""},
		{"NTFS", map[int]string{3: "NTFS    ", 11: "\x00\x02", 40: "\x64"}, 100 * 512, "file system"},
		{"exFAT", map[int]string{3: "EXFAT   ", 72: "\x64", 108: "\x09"}, 100 * 512, "file system"},
		{"exFAT of nonsense", map[int]string{3: "EXFAT   ", 72: "\x64", 108: "\xc8"}, 0, ""},
		{"FAT16", map[int]string{11: "\x00\x02", 19: "\x64", 54: "FAT16   ", 510: "\x55\xaa"}, 100 * 512, "file system"},
		{"FAT32", map[int]string{11: "\x00\x02", 32: "\x64\x01", 82: "FAT32   ", 510: "\x55\xaa"}, 356 * 512, "file system"},
		{"F2FS", map[int]string{1024: "\x10\x20\xf5\xf2", 1040: "\x0c", 1060: "\x64"}, 100 * 4096, "file system"},
		{"F2FS of nonsense", map[int]string{1024: "\x10\x20\xf5\xf2", 1040: "\xff", 1060: "\x64"}, 0, ""},
		{"SquashFS", map[int]string{0: "hsqs", 40: "\x64"}, 100, "file system"},
		{"ISO 9660", map[int]string{32 << 10: "\x01CD001", 32<<10 + 80: "\x64", 32<<10 + 128: "\x00\x08"}, 100 * 2048, "file system"},
		{"LVM", map[int]string{512: "LABELONE", 532: "\x20", 536: "LVM2 001", 512 + 32 + 32: "\x00\x00\x40"}, 4 << 20, "physical volume (LVM)"},
		{"LVM of nonsense", map[int]string{512: "LABELONE", 532: "\xff\xff\xff\xff", 536: "LVM2 001"}, 0, ""},
		{"md 1.2", map[int]string{4096: "\xfc\x4e\x2b\xa9\x01", 4096 + 128: "\x08", 4096 + 136: "\x10"}, 24 * 512, "array (md)"},
		{"md of nonsense", map[int]string{0: "\xfc\x4e\x2b\xa9\x01", 128: "\xff\xff\xff\xff\xff\xff\xff\xff", 136: "\x10"}, 0, ""},
		{"swap", map[int]string{1024: "\x01\x00\x00\x00\x63", 4086: "SWAPSPACE2"}, 100 * 4096, "swap area"},
	} {
		p := make([]byte, lengthLen)
		for at, bytes := range c.put {
			copy(p[at:], bytes)
		}
		if got, what := promised(p); got != c.want || what != c.what {
			t.Errorf("%s: %d bytes of %q, want %d of %q", c.name, got, what, c.want, c.what)
		}
		for n := range p {
			if n <= 4608 || n >= 64<<10 || n/512 == 64 {
				promised(p[:n])
			}
		}
	}
}

// TestImageCutShort: a file that is shorter than what is on it says is refused, and is
// taken when its length is said; whole it is taken.
func TestImageCutShort(t *testing.T) {
	const length = 320 << 20 // XFS makes none below 300 MiB
	for name, c := range map[string]struct {
		tool []string
		says string
	}{
		"ext2":                     {[]string{"mkfs.ext2", "-q", "-F"}, "file system"},
		"ext4":                     {[]string{"mkfs.ext4", "-q", "-F"}, "file system"},
		"ext4 of 1 KiB, 64 bits":   {[]string{"mkfs.ext4", "-q", "-F", "-b", "1024", "-O", "64bit"}, "file system"},
		"XFS":                      {[]string{"mkfs.xfs", "-q", "-f"}, "file system"},
		"Btrfs":                    {[]string{"mkfs.btrfs", "-q", "-f"}, "file system"},
		"FAT":                      {[]string{"mkfs.vfat"}, "file system"},
		"FAT32":                    {[]string{"mkfs.vfat", "-F", "32"}, "file system"},
		"exFAT":                    {[]string{"mkfs.exfat"}, "file system"},
		"NTFS":                     {[]string{"mkfs.ntfs", "-q", "-F", "-f"}, "file system"},
		"F2FS":                     {[]string{"mkfs.f2fs", "-q", "-f"}, "file system"},
		"LVM":                      {[]string{"sh", "-c", `l=$(losetup -f --show "$0") || exit 9; pvcreate -q -y --config 'devices { use_devicesfile=0 filter=["a|^'$l'$|","r|.*|"] }' $l; rc=$?; losetup -d $l; exit $rc`}, "physical volume (LVM)"},
		"swap":                     {[]string{"mkswap", "-q"}, "swap area"},
		"MBR":                      {[]string{"sh", "-c", "printf 'label: dos\n,100M\n,\n' | sfdisk -q \"$0\""}, "partition table"},
		"MBR, logical":             {[]string{"sh", "-c", "printf 'label: dos\n,100M\n,,E\n,20M\n' | sfdisk -q \"$0\""}, "partition table"},
		"GPT, partitions in front": {[]string{"sh", "-c", "printf 'label: gpt\n,10M\n' | sfdisk -q \"$0\""}, "partition table"},
	} {
		t.Run(name, func(t *testing.T) {
			program := c.tool[0]
			switch {
			case name == "LVM":
				program = "pvcreate"
			case program == "sh":
				program = "sfdisk"
			}
			if _, err := exec.LookPath(program); err != nil {
				t.Skip(err)
			}
			path := filepath.Join(t.TempDir(), "image.raw")
			if err := errors.Join(os.WriteFile(path, nil, 0o600), os.Truncate(path, length)); err != nil {
				t.Fatal(err)
			}
			if out, err := exec.Command(c.tool[0], append(c.tool[1:], path)...).CombinedOutput(); err != nil {
				if name == "LVM" {
					t.Skipf("no loop device to be had, or pvcreate does not take it: %s", out)
				}
				t.Fatalf("%v: %s", err, out)
			}
			open := func(length int64) error {
				s, err := Open(t.Context(), path, Options{Size: size.Bytes(length)})
				if err == nil {
					s.Close()
				}
				return err
			}
			if err := open(0); err != nil {
				t.Errorf("whole: %v", err)
			}
			for _, cut := range []int64{length - 1<<20, length / 2, 4 << 20, 200 << 10} {
				if err := os.Truncate(path, cut); err != nil {
					t.Fatal(err)
				}
				if err := open(0); err == nil || !strings.Contains(err.Error(), "its "+c.says+" goes on to ") {
					t.Errorf("cut to %d: %v", cut, err)
				}
				if err := open(cut); err != nil {
					t.Errorf("cut to %d, and said so: %v", cut, err)
				}
			}
		})
	}
}

// FuzzImageHead: no first bytes make the look at them fail.
func FuzzImageHead(f *testing.F) {
	for _, m := range heads {
		f.Add(append(make([]byte, m.at), m.bytes...))
	}
	f.Add([]byte("BZh91AY&SY"))
	f.Fuzz(func(t *testing.T, p []byte) {
		if n, _ := promised(p); n < 0 {
			t.Errorf("an image of %d bytes", n)
		}
		for _, m := range [][]magic{heads, tails} {
			if format := notRaw(m, p); format != nil && format.refuse("x") == nil {
				t.Errorf("%s is taken", format.name)
			}
		}
	})
}
