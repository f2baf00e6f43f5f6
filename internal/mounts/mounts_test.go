package mounts

import (
	"os"
	"path/filepath"
	"testing"
)

const (
	someInfo = `22 1 254:0 / / rw,relatime - ext4 /dev/vda rw
23 22 0:21 / /proc rw - proc proc rw
40 22 254:16 / /mnt/disk1 rw - ext4 /dev/vdb rw
41 22 254:32 / /mnt/with\040blank rw - ext4 /dev/vdc rw
`
	someFstab = `# <file system> <mount point> ...
UUID=1 / ext4 defaults 0 1
UUID=2 none swap sw 0 0
UUID=3 /mnt/disk1 ext4 defaults 0 2
UUID=4	/mnt/disk2/	ext4 defaults,nofail 0 2
UUID=5 /mnt/with\040blank ext4 defaults 0 2
UUID=6 /mnt/other\040blank ext4 noauto 0 2
#UUID=7 /mnt/disk4 ext4 defaults 0 2
short
`
	someUnit = "[Mount]\nWhat=/dev/vdd\nWhere=/mnt/disk3\n"
)

func table() Table {
	t := Table{Mounted: make(map[string]bool), Planned: make(map[string]string)}
	t.addMountInfo([]byte(someInfo))
	t.addFstab([]byte(someFstab))
	t.addUnit("/etc/systemd/system/mnt-disk3.mount", []byte(someUnit))
	return t
}

func TestAbsent(t *testing.T) {
	for dir, want := range map[string]string{
		"/mnt/disk1":       "",
		"/mnt/disk1/asd":   "",
		"/mnt/disk2":       "/mnt/disk2",
		"/mnt/disk2/":      "/mnt/disk2",
		"/mnt/disk2/a/b":   "/mnt/disk2",
		"/mnt/disk22":      "",
		"/mnt/disk3":       "/mnt/disk3",
		"/mnt/disk4":       "",
		"/mnt/with blank":  "",
		"/mnt/other blank": "/mnt/other blank",
		"/srv/ovs":         "",
		"/":                "",
	} {
		point, by, ok := table().Absent(dir)
		if point != want || ok != (want != "") || ok != (by != "") {
			t.Errorf("%s: %q, %q, %v", dir, point, by, ok)
		}
	}
	if _, _, ok := (Table{Planned: map[string]string{"/a": fstab}}).Absent("/a"); ok {
		t.Error("something is absent where nobody knows what is mounted")
	}
}

// A symbolic link to a mount point counts as the mount point.
func TestAbsentBehindLink(t *testing.T) {
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(dir, "link")
	if err := os.Symlink(filepath.Join(dir, "point"), link); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(dir, "point"), 0o700); err != nil {
		t.Fatal(err)
	}
	some := table()
	some.plan(filepath.Join(dir, "point"), fstab)
	for _, name := range []string{link, filepath.Join(link, "asd/0")} {
		if _, _, ok := some.Absent(name); !ok {
			t.Errorf("%s is no mount point", name)
		}
	}
}

func TestRead(t *testing.T) {
	if here := Read(); !here.Mounted["/"] {
		t.Skipf("this machine does not tell what is mounted: %v", here)
	}
}

func FuzzTable(f *testing.F) {
	f.Add([]byte(someInfo), "/mnt/disk2")
	f.Add([]byte(someFstab), `/mnt/a\0`)
	f.Fuzz(func(t *testing.T, b []byte, dir string) {
		some := table()
		some.addMountInfo(b)
		some.addFstab(b)
		some.addUnit("u", b)
		if filepath.IsAbs(dir) {
			some.Absent(dir)
		}
	})
}
