package control_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"openvstorage/internal/control"
	"openvstorage/internal/control/controltest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var _ control.Host = (*controltest.Host)(nil)

// serve runs a server of h on a fresh directory until the test ends.
func serve(t *testing.T, h control.Host, change func(*control.Options)) (*control.Server, *control.Client, string) {
	t.Helper()
	dir, err := os.MkdirTemp("", "control") // t.TempDir may be too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	l, err := control.ListenUnix(filepath.Join(dir, control.SocketName))
	if err != nil {
		t.Fatal(err)
	}
	opt := control.Options{
		Host: h, Status: control.Status{Data: dir, Release: "test"},
		URIs: func(name string) []string { return []string{"nbd:" + name} },
	}
	if change != nil {
		change(&opt)
	}
	s := control.NewServer(opt)
	served := make(chan error, 1)
	go func() { served <- s.Serve(l) }()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := s.Shutdown(ctx); err != nil {
			t.Error(err)
		}
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
	return s, control.NewClient(dir), dir
}

func TestEveryCall(t *testing.T) {
	_, c, dir := serve(t, &controltest.Host{}, nil)
	ctx := t.Context()
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	status, err := c.Status(ctx)
	check(err)
	if status.PID != os.Getpid() || status.Data != dir {
		t.Errorf("status %+v", status)
	}
	list, err := c.List(ctx)
	check(err)
	if list == nil || len(list) != 0 {
		t.Errorf("list of none: %#v", list)
	}
	made, err := c.Create(ctx, "team a/ü disk", 8192)
	check(err)
	if made.Name != "team a/ü disk" || made.Size != 8192 || !slices.Equal(made.URIs, []string{"nbd:team a/ü disk"}) {
		t.Errorf("created %+v", made)
	}
	check(c.Resize(ctx, made.Name, 16384))
	check(c.Rename(ctx, made.Name, "a"))
	snap, err := c.SnapshotCreate(ctx, "a", "monday")
	check(err)
	snaps, err := c.SnapshotList(ctx, "a")
	check(err)
	if len(snaps) != 1 || snaps[0].ID != snap.ID {
		t.Errorf("snapshots %+v, made %+v", snaps, snap)
	}
	check(c.Rollback(ctx, "a", "monday"))
	child, err := c.Clone(ctx, "a", "monday", "b", nil)
	check(err)
	if child.Parent != "a@monday" {
		t.Errorf("clone %+v", child)
	}
	check(c.Sync(ctx, "b", nil))
	list, err = c.List(ctx)
	check(err)
	if len(list) != 2 || list[0].Name != "a" || list[1].Name != "b" || list[0].ID != made.ID || list[0].Size != 16384 {
		t.Errorf("list %+v", list)
	}
	info, err := c.Info(ctx, "a")
	check(err)
	if !slices.Equal(info.Children, []string{"b"}) {
		t.Errorf("info %+v", info)
	}
	check(c.Delete(ctx, "b"))
	check(c.SnapshotDelete(ctx, "a", "monday"))
}

// errorHost answers Info with what it is told.
type errorHost struct {
	controltest.Host
	err error
}

func (h *errorHost) Info(context.Context, string) (control.Info, error) {
	return control.Info{}, h.err
}

func TestErrorKindsSurviveTheWire(t *testing.T) {
	h := &errorHost{}
	_, c, _ := serve(t, h, nil)
	kinds := []error{
		control.ErrNotFound, control.ErrExists, control.ErrHasChildren, control.ErrInvalid,
		control.ErrHalted, control.ErrElsewhere, control.ErrBusy, control.ErrUnknownOutcome, context.Canceled, errors.New("of no kind"),
	}
	for i, kind := range kinds {
		h.err = fmt.Errorf("vDisk \"d\": %w; do this", kind)
		_, err := c.Info(t.Context(), "d")
		if err == nil || err.Error() != h.err.Error() {
			t.Errorf("%v arrives as %v", h.err, err)
		}
		for j, other := range kinds[:len(kinds)-1] {
			if errors.Is(err, other) != (i == j) {
				t.Errorf("%v: errors.Is(%v) is %v", err, other, i != j)
			}
		}
	}
}

func TestProgressIsStreamed(t *testing.T) {
	arrived := make(chan struct{})
	h := &controltest.Host{}
	h.Step = func(ctx context.Context, step int) error {
		if step == 1 { // the first progress is at the client before the call goes on
			select {
			case <-arrived:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		return nil
	}
	_, c, _ := serve(t, h, nil)
	if _, err := c.Create(t.Context(), "a", 4096); err != nil {
		t.Fatal(err)
	}
	var seen []int64
	err := c.Sync(t.Context(), "a", func(done, total int64) {
		if len(seen) == 0 {
			close(arrived)
		}
		if seen = append(seen, done); total != controltest.Steps*controltest.StepSize {
			t.Errorf("total %d", total)
		}
	})
	if err != nil || len(seen) == 0 || seen[0] != controltest.StepSize || !slices.IsSorted(seen) {
		t.Errorf("progress %v, %v", seen, err)
	}
}

func TestClientGoneCancelsTheCall(t *testing.T) {
	begun, ended := make(chan struct{}), make(chan error, 1)
	h := &controltest.Host{}
	h.Step = func(ctx context.Context, step int) error {
		if step == 1 {
			close(begun)
			<-ctx.Done()
			ended <- ctx.Err()
			return ctx.Err()
		}
		return nil
	}
	_, c, _ := serve(t, h, nil)
	if _, err := c.Create(t.Context(), "a", 4096); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-begun; cancel() }()
	if err := c.Sync(ctx, "a", nil); !errors.Is(err, context.Canceled) {
		t.Errorf("the client says %v; want canceled", err)
	}
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("the host saw %v; want canceled", err)
	}
}

func TestShutdownCancelsWhatDoesNotEnd(t *testing.T) {
	begun := make(chan struct{})
	h := &controltest.Host{}
	h.Step = func(ctx context.Context, _ int) error {
		close(begun)
		<-ctx.Done()
		return ctx.Err()
	}
	s, c, _ := serve(t, h, nil)
	if _, err := c.Create(t.Context(), "a", 4096); err != nil {
		t.Fatal(err)
	}
	answer := make(chan error, 1)
	go func() { answer <- c.Sync(context.Background(), "a", nil) }()
	<-begun
	over, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Shutdown(over); err != nil {
		t.Error(err)
	}
	if err := <-answer; !errors.Is(err, control.ErrBusy) || !strings.Contains(err.Error(), "stopping") {
		t.Errorf("the client is told %v; want that ovs up is stopping", err)
	}
}

func TestTooManyCallsAreBusy(t *testing.T) {
	begun, release := make(chan struct{}), make(chan struct{})
	h := &controltest.Host{}
	h.Step = func(_ context.Context, step int) error {
		if step == 0 {
			close(begun)
			<-release
		}
		return nil
	}
	_, c, _ := serve(t, h, func(o *control.Options) { o.Calls = 1 })
	if _, err := c.Create(t.Context(), "a", 4096); err != nil {
		t.Fatal(err)
	}
	answer := make(chan error, 1)
	go func() {
		err := control.ErrBusy
		for errors.Is(err, control.ErrBusy) { // the call before may not have ended yet
			err = c.Sync(context.Background(), "a", nil)
		}
		answer <- err
	}()
	<-begun
	if _, err := c.List(t.Context()); !errors.Is(err, control.ErrBusy) {
		t.Errorf("a second call gets %v; want ErrBusy", err)
	}
	close(release)
	if err := <-answer; err != nil {
		t.Error(err)
	}
}

// raw sends bytes and returns the status and the answer's error kind.
func raw(t *testing.T, dir, method, path string, body io.Reader) (int, string) {
	t.Helper()
	transport := &http.Transport{DisableKeepAlives: true, DialContext: func(context.Context, string, string) (net.Conn, error) {
		return net.Dial("unix", filepath.Join(dir, control.SocketName))
	}}
	r, err := http.NewRequestWithContext(t.Context(), method, "http://ovs"+path, body)
	if err != nil {
		t.Fatal(err)
	}
	response, err := transport.RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	var l struct{ Error struct{ Kind string } }
	text, _ := bufio.NewReader(response.Body).ReadBytes('\n')
	if err := json.Unmarshal(text, &l); err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return response.StatusCode, l.Error.Kind
}

func TestBadRequests(t *testing.T) {
	_, _, dir := serve(t, &controltest.Host{}, func(o *control.Options) { o.BodyTimeout = 200 * time.Millisecond })
	never, w := io.Pipe() // a client that stops in mid-request
	defer w.Close()
	for _, c := range []struct {
		what, method, path string
		body               io.Reader
		status             int
		kind               string
	}{
		{"not JSON", "POST", "/v1/vdisk/info", strings.NewReader("{"), 400, "invalid"},
		{"not UTF-8", "POST", "/v1/vdisk/info", strings.NewReader("{\"name\":\"a\xff\"}"), 400, "invalid"},
		{"wrong type", "POST", "/v1/vdisk/info", strings.NewReader(`{"name":7}`), 400, "invalid"},
		{"negative size", "POST", "/v1/vdisk/create", strings.NewReader(`{"name":"a","size":-1}`), 400, "invalid"},
		{"too long", "POST", "/v1/vdisk/info", strings.NewReader(`{"name":"` + strings.Repeat("x", control.RequestMax) + `"}`), 400, "invalid"},
		{"never ends", "POST", "/v1/vdisk/info", never, 400, "invalid"},
		{"other version", "POST", "/v9/vdisk/info", strings.NewReader("{}"), 400, "invalid"},
		{"other method", "GET", "/v1/vdisk/info", nil, 400, "invalid"},
		{"absent", "POST", "/v1/vdisk/info", strings.NewReader(`{"name":"a"}`), 404, "not-found"},
	} {
		if status, kind := raw(t, dir, c.method, c.path, c.body); status != c.status || kind != c.kind {
			t.Errorf("%s: %d %q; want %d %q", c.what, status, kind, c.status, c.kind)
		}
	}
}

// JSON has U+FFFD for what is not UTF-8: a name would become another one's.
func TestWhatIsNotUTF8NamesNothing(t *testing.T) {
	host := &controltest.Host{}
	_, c, _ := serve(t, host, nil)
	ctx := context.Background()
	if _, err := c.Create(ctx, "a", 4096); err != nil {
		t.Fatal(err)
	}
	_, create := c.Create(ctx, "b\xff", 4096)
	_, clone := c.Clone(ctx, "a", "", "b\xff", nil)
	_, info := c.Info(ctx, "a\xff")
	for what, err := range map[string]error{
		"create": create, "clone": clone, "info": info, "delete": c.ForceDelete(ctx, "a\xff"), "rename": c.Rename(ctx, "a", "b\xc0\xaf"),
	} {
		if !errors.Is(err, control.ErrInvalid) || !strings.Contains(err.Error(), "UTF-8") || !strings.Contains(err.Error(), `\x`) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if list, err := c.List(ctx); err != nil || len(list) != 1 || list[0].Name != "a" {
		t.Error(list, err)
	}
}

func TestNotRunningSaysHowToStart(t *testing.T) {
	dir := t.TempDir()
	_, err := control.NewClient(dir).List(t.Context())
	if !errors.Is(err, control.ErrNotRunning) || !strings.Contains(err.Error(), "ovs up --data "+dir) {
		t.Errorf("%v", err)
	}
}

// A server that dies in mid-answer is not taken for one that is done.
func TestCutAnswer(t *testing.T) {
	dir := t.TempDir()
	l, err := net.Listen("unix", filepath.Join(dir, control.SocketName))
	if err != nil {
		t.Skipf("socket path too long here: %v", err)
	}
	defer l.Close()
	go func() {
		c, err := l.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		http.ReadRequest(bufio.NewReader(c))
		io.WriteString(c, "HTTP/1.1 200 OK\r\n\r\n{\"progress\":{\"done\":1,\"total\":2}}\n")
	}()
	err = control.NewClient(dir).Sync(t.Context(), "a", nil)
	if err == nil || !strings.Contains(err.Error(), "may or may not") {
		t.Errorf("%v", err)
	}
}
