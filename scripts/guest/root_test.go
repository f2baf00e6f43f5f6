package guest_test

import (
	"archive/tar"
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"openvstorage/scripts/guest"
)

const sources = 60

// source is a program in many files, in a tar, with what it must print.
func source(t *testing.T) []byte {
	t.Helper()
	var header, calls, expected strings.Builder
	files := map[string]string{}
	for i := range sources {
		fmt.Fprintf(&header, "unsigned f%d(unsigned x);\n", i)
		fmt.Fprintf(&calls, "\tprintf(\"%%u\\n\", f%d(%du));\n", i, i+1)
		files[fmt.Sprintf("f%d.c", i)] = fmt.Sprintf(`#include "f.h"

unsigned f%[1]d(unsigned x)
{
	unsigned i;

	for (i = 0; i < %[2]du; i++)
		x = x * 1664525u + (1013904223u ^ %[1]du);
	return x;
}
`, i, 1000+i)
		x := uint32(i + 1)
		for range 1000 + i {
			x = x*1664525 + (1013904223 ^ uint32(i))
		}
		fmt.Fprintln(&expected, x)
	}
	files["f.h"], files["expected"] = header.String(), expected.String()
	files["main.c"] = "#include <stdio.h>\n#include \"f.h\"\n\nint main(void)\n{\n" + calls.String() + "\treturn 0;\n}\n"
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for name, text := range files {
		must(t, w.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(text))}))
		_, err := w.Write([]byte(text))
		must(t, err)
	}
	must(t, w.Close())
	return b.Bytes()
}

// TestRoot: a Debian with its root on a vDisk unpacks sources, compiles and runs them,
// deletes and trims. Over the mount it also grows its root and syncs many files, and
// loses its power meanwhile. It has everything that it had synced, and boots again.
func TestRoot(t *testing.T) {
	s := up(t)
	tarball := filepath.Join(s.temp, "source.tar")
	must(t, os.WriteFile(tarball, append(source(t), make([]byte, 1<<20)...), 0o644))
	second := "driver=file,node-name=second,read-only=on,filename=" + tarball
	for _, door := range doors {
		name := "root-" + door
		s.importRoot(name)
		args := []string{"task=build"}
		if door == "fuse" {
			args = append(args, fmt.Sprint("grow=", 1800<<10))
		}
		m := s.machine(guest.Config{Step: "root", Args: args, Block: s.block(door, name), Second: second})
		step, err := m.Await("build ok", 0, workMax)
		must(t, err)
		t.Logf("%s: %d files compiled at %v", door, sources+1, step.At)
		_, err = m.Await("trimmed ok", 0, workMax)
		must(t, err)
		if door == "fuse" {
			s.ovs("vdisk", "resize", name, "--size", "2GiB")
			must(t, m.QMP("block_resize", map[string]any{"node-name": "disk", "size": 2 << 30}))
			_, err = m.Await("grown ok", 0, workMax)
			must(t, err)
		}
		awaitSynced(t, m, 20)
		m.Kill()
		s.recover(s.block(door, name), synced(m))
		m = s.guest("root", s.block(door, name))
		_, err = m.Await("boot ok", 0, bootMax)
		must(t, err)
		must(t, m.Wait(stopMax))
	}
}
