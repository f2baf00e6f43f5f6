package image

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"openvstorage/internal/control"
	"openvstorage/nbd"
	"openvstorage/nbd/nbdtest"
)

// TestImportUnknownOutcome: what an import says and undoes when a change is not
// answered. Only behind a rename all of the image is there.
func TestImportUnknownOutcome(t *testing.T) {
	for _, test := range []struct {
		call    string // is not answered
		says    string
		deleted bool
	}{
		{"create", `import disk: vDisk "disk.importing": may appear, empty: look with ovs vdisk list, and if it is there: ovs vdisk delete disk.importing; then import again: `, false},
		{"resize", "import disk: no answer", true},
		{"rename", `import disk: all of it is on vDisk 6ba7b810-9dad-11d1-80b4-00c04fd430c8, which may be named "disk.importing" still: `, false},
	} {
		t.Run(test.call, func(t *testing.T) {
			dir := t.TempDir()
			n, err := nbd.NewServer(nbdtest.Exports{"disk.importing": nbdtest.NewMemory(1 << 20)}, nbd.Options{})
			must(t, err)
			served := filepath.Join(dir, "n")
			ln, err := net.Listen("unix", served)
			must(t, err)
			var serving sync.WaitGroup
			serving.Go(func() { _ = n.Serve(context.Background(), ln) })
			t.Cleanup(func() { must(t, n.Close()); serving.Wait() })

			deleted := false
			management, err := net.Listen("unix", filepath.Join(dir, control.SocketName))
			must(t, err)
			h := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				call := r.URL.Path[strings.LastIndexByte(r.URL.Path, '/')+1:]
				answer := `{"result": {}}`
				switch {
				case call == test.call:
					answer = `{"error": {"kind": "unknown-outcome", "message": "no answer"}}`
				case call == "info":
					answer = `{"error": {"kind": "not-found", "message": "none"}}`
				case call == "create":
					answer = `{"result": {"id": "6ba7b810-9dad-11d1-80b4-00c04fd430c8", "name": "disk.importing", "size": 4096, "uris": ["nbd+unix:///disk.importing?socket=` + served + `"]}}`
				case call == "delete":
					deleted = true
				}
				_, _ = io.WriteString(w, answer+"\n")
			})}
			serving.Go(func() { _ = h.Serve(management) })
			t.Cleanup(func() { must(t, h.Close()) })

			r, w, err := os.Pipe()
			must(t, err)
			_, err = w.Write(make([]byte, 16<<10))
			must(t, errors.Join(err, w.Close()))
			image := &Source{File: r, name: "-", raw: true}
			defer image.Close()
			_, err = Import(t.Context(), control.NewClient(dir), image, "disk", nil)
			if !errors.Is(err, control.ErrUnknownOutcome) || !strings.HasPrefix(err.Error(), test.says) {
				t.Errorf("%v\nwant %s", err, test.says)
			}
			if deleted != test.deleted {
				t.Errorf("vDisk deleted: %v", deleted)
			}
		})
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
