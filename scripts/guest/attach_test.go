package guest_test

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"openvstorage/scripts/guest"
	"openvstorage/scripts/server"
)

// TestAttach: `ovs up` runs in a guest whose kernel has NBD devices, with its data on a disk of the
// guest. A device that it attaches has the right size, abilities and partitions. A writer only waits
// while ovs is killed, restarted, or stopped for longer than a request may take. The device grows while
// it is mounted, is not detached while it is in use, and comes back by itself.
func TestAttach(t *testing.T) {
	if guest.Prepared() == "" {
		t.Skip("guests are booted by make e2e-vm")
	}
	temp, err := os.MkdirTemp("", "ovs-guest-")
	must(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(temp) })
	bin, err := server.Build(temp)
	must(t, err)
	data := filepath.Join(temp, "data.raw")
	must(t, os.WriteFile(data, nil, 0o600))
	must(t, os.Truncate(data, 3<<30))
	m, err := guest.Start(guest.Config{
		Dir: guest.Prepared(), Temp: temp, Step: "attach", Block: document(t, "-blockdev driver=file,", "MNT/NAME.raw", data, "disk0", "disk"), CPUs: 2, Memory: 1536,
		Initrd: withOvs(t, temp, bin),
	})
	must(t, err)
	t.Cleanup(m.Kill)
	_, err = m.Await("attach ok", 0, 2*workMax)
	for _, s := range m.Steps() {
		t.Logf("%6.1f s  %s", s.At.Seconds(), s.Text)
	}
	must(t, err)
	must(t, m.Wait(stopMax))
	log, _, _ := strings.Cut(m.Console(), "writer ok") // later there are some that are meant
	if strings.Contains(log, "I/O error, dev nbd0") {
		t.Errorf("the kernel saw errors:\n%s", log)
	}
}

// withOvs returns an initrd that has the program on top of what prepare made: the kernel unpacks one after the other.
func withOvs(t *testing.T, dir, bin string) string {
	t.Helper()
	name := filepath.Join(dir, "initrd")
	base, err := os.ReadFile(filepath.Join(guest.Prepared(), "initrd.gz"))
	must(t, err)
	f, err := os.Create(name)
	must(t, err)
	_, err = f.Write(base)
	must(t, err)
	z, err := gzip.NewWriterLevel(f, gzip.BestSpeed)
	must(t, err)
	var archive bytes.Buffer
	content, err := os.ReadFile(bin)
	must(t, err)
	addFile(&archive, "bin/ovs", 0o100755, content)
	addFile(&archive, "TRAILER!!!", 0, nil)
	_, err = z.Write(archive.Bytes())
	must(t, err)
	must(t, z.Close())
	must(t, f.Close())
	return name
}

// addFile appends a file to a cpio archive of the "newc" format: a header of
// hexadecimal numbers, the name, the content, each padded to 4 bytes.
func addFile(b *bytes.Buffer, name string, mode int, content []byte) {
	pad := func() { b.Write(make([]byte, -b.Len()&3)) }
	fmt.Fprintf(b, "070701%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%s\x00",
		b.Len()+1, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(name)+1, 0, name)
	pad()
	b.Write(content)
	pad()
}
