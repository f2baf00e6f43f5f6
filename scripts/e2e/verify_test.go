package e2e

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"openvstorage/fusefs/transport/ringtest"
	"openvstorage/scripts/fio"
)

// TestFioVerify: four connections, mixed sizes, every block checked.
func TestFioVerify(t *testing.T) {
	need(t, "fio")
	uri, _, _ := newDisk(t, gib)
	fioVerify(t, append(verified, []string{"--rw=randwrite", "--bs_unaligned", "--bsrange=512-20k"}), "--ioengine=nbd", "--uri="+uri)
}

var verified = [][]string{
	{"--rw=randrw", "--bsrange=4k-64k", "--verify_backlog=256"},
	{"--rw=randwrite", "--bs=4k"},
	{"--rw=write", "--bs=128k"},
}

func fioVerify(t *testing.T, loads [][]string, to ...string) {
	for _, load := range loads {
		t.Run(strings.Join(load, " "), func(t *testing.T) {
			_, err := fio.Run(append(append(load, to...), "--thread", "--numjobs=4", "--iodepth=16",
				"--size=48m", "--offset_increment=48m", "--verify=crc32c", "--verify_fatal=1", "--fsync=64")...)
			must(t, err)
		})
	}
}

// TestFioVerifyMount: the same on the mount, both ways to the kernel, with writes
// that one append takes together.
func TestFioVerifyMount(t *testing.T) {
	need(t, "fio")
	run := func(t *testing.T, way string) {
		s, dir := mounted(t, "--fuse", way, "--write-buffer", "128MiB")
		s.create("disk", gib)
		fioVerify(t, verified, "--ioengine=libaio", "--direct=1", "--filename="+filepath.Join(dir, "disk.raw"))
	}
	t.Run("device", func(t *testing.T) { run(t, "device") })
	t.Run("ring", func(t *testing.T) { ringtest.Set(t, true); run(t, "ring") })
}

// TestBlkverify: QEMU compares every read with a raw file beside the export.
func TestBlkverify(t *testing.T) {
	need(t, "qemu-io", "qemu-img")
	const size = 64 * mib
	uri, socket, export := newDisk(t, size)
	raw := filepath.Join(t.TempDir(), "reference.raw")
	must(t, os.WriteFile(raw, nil, 0o644))
	must(t, os.Truncate(raw, size))
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	var script strings.Builder
	for i := range 1500 {
		n := int64(512) << random.IntN(9)
		off := random.Int64N((size-n)/512+1) * 512
		switch random.IntN(8) {
		case 0:
			// Not write -z: blkverify aborts on it.
			fmt.Fprintf(&script, "write -P 0 %d %d\n", off, n)
		case 1, 2:
			fmt.Fprintf(&script, "read %d %d\n", off, n)
		case 3:
			fmt.Fprintf(&script, "flush\n")
		default:
			fmt.Fprintf(&script, "write -P %d %d %d\n", i%255+1, off, n)
		}
	}
	fmt.Fprintf(&script, "read 0 %d\nflush\n", size)
	options := "driver=blkverify,raw.driver=file,raw.filename=" + raw + ",test.driver=nbd,test.server.type=unix,test.server.path=" + socket
	if export != "" {
		options += ",test.export=" + export
	}
	out := shIn(t, script.String(), "qemu-io", "--image-opts", options)
	if strings.Contains(out, "failed") || strings.Contains(out, "mismatch") {
		t.Errorf("qemu-io says:\n%s", out)
	}
	sh(t, "qemu-img", "compare", "-f", "raw", "-F", "raw", raw, uri)
}
