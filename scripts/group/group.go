// Package group starts the members of one Arakoon group as processes of scripts/member, and
// makes clients for them. Benchmarks and the faults of scripts/chaos stand on it.
package group

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"openvstorage/arakoon"
	"openvstorage/arakoon/kvclient"
	"openvstorage/internal/wire"
	"openvstorage/scripts/server"

	"github.com/google/uuid"
)

// Name is the group's.
const Name = "test"

// longest is how long a value may get by Append; then it begins anew.
const longest = 100

// Extended is the value that Append makes.
func Extended(was, token string) string {
	if len(was) > longest {
		was = ""
	}
	return was + "," + token
}

// Append is a user function of all members: it appends a token to a key's value. Its
// argument is the key, a space, and the token.
var Append = arakoon.Function{Name: "append", Version: 1, Run: func(tx arakoon.Tx, arg []byte) ([]byte, error) {
	key, token, ok := strings.Cut(string(arg), " ")
	if !ok {
		return nil, fmt.Errorf("argument %q", arg)
	}
	was, _ := tx.Get([]byte(key))
	now := []byte(Extended(string(was), token))
	tx.Set([]byte(key), now)
	return now, nil
}}

// Host is the host of a member: each has one of its own.
func Host(cluster uuid.UUID, member uint64) uuid.UUID {
	return uuid.NewSHA1(cluster, fmt.Appendf(nil, "host of member %d", member))
}

// Hash is a member's hash of its state at an index.
type Hash struct {
	Index uint64
	Sum   string
}

// Build builds scripts/member into a directory and returns the program.
func Build(ctx context.Context, dir string) (string, error) {
	program := filepath.Join(dir, "member")
	out, err := exec.CommandContext(ctx, "go", "build", "-o", program, "openvstorage/scripts/member").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("build scripts/member: %w\n%s", err, out)
	}
	return program, nil
}

// Place is where a member runs.
type Place struct {
	ID      uint64
	Dir     string   // its data
	Address string   // host:port
	Prefix  []string // a command that it is started by, as nsenter; may be empty
}

// Group is a group and its processes. Its methods are safe for concurrent use; of one
// member one may be called at a time.
type Group struct {
	Program string
	Cluster uuid.UUID
	Control string   // the directory of the control sockets; a short path
	Args    []string // more arguments of each member

	mu      sync.Mutex
	members []*Member // ascending
}

// New makes a group without members.
func New(program, control string, args ...string) *Group {
	return &Group{Program: program, Cluster: uuid.New(), Control: control, Args: args}
}

// Member is one of them.
type Member struct {
	Place
	joining bool
	group   *Group
	http    http.Client

	mu      sync.Mutex
	process *server.Process
}

// Free returns an address of loopback that nobody listens on.
func Free() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer l.Close()
	return l.Addr().String(), nil
}

// Add notes a member without starting it. The first of a new group does not join.
func (g *Group) Add(p Place, joining bool) *Member {
	m := &Member{Place: p, joining: joining, group: g}
	m.http.Transport = &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", m.socket())
	}}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.members = append(g.members, m)
	return m
}

// Drop forgets a member, which must have ended.
func (g *Group) Drop(m *Member) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.members = slices.DeleteFunc(g.members, func(o *Member) bool { return o == m })
}

// Members are those that were added.
func (g *Group) Members() []*Member {
	g.mu.Lock()
	defer g.mu.Unlock()
	return slices.Clone(g.members)
}

func (g *Group) peers() string {
	var list []string
	for _, m := range g.Members() {
		list = append(list, fmt.Sprintf("%d=%s", m.ID, m.Address))
	}
	return strings.Join(list, ",")
}

func (m *Member) socket() string { return filepath.Join(m.group.Control, fmt.Sprintf("%d.ctl", m.ID)) }

// Start starts the member's process and returns when it serves.
func (m *Member) Start() error {
	g := m.group
	args := append(slices.Clone(m.Prefix), g.Program, "-dir", m.Dir, "-listen", m.Address, "-control", m.socket(),
		"-cluster", g.Cluster.String(), "-member", fmt.Sprint(m.ID), "-peers", g.peers())
	if m.joining {
		args = append(args, "-joining")
	}
	p, err := server.Start(server.Command{Name: fmt.Sprintf("member %d", m.ID), Args: append(args, g.Args...), ReadyLine: "ready"})
	if err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.process = p
	return nil
}

// Process is the member's, nil if it was not started.
func (m *Member) Process() *server.Process {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.process
}

// Running says whether its process is there.
func (m *Member) Running() bool {
	p := m.Process()
	if p == nil {
		return false
	}
	select {
	case <-p.Done():
		return false
	default:
		return true
	}
}

// Call asks the member itself: see scripts/member/control.go. answer may be nil.
func (m *Member) Call(ctx context.Context, path string, form url.Values, answer any) error {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://member"+path+"?"+form.Encode(), nil)
	if err != nil {
		return err
	}
	response, err := m.http.Do(r)
	if err != nil {
		return fmt.Errorf("member %d: %w", m.ID, err)
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		words, _ := io.ReadAll(io.LimitReader(response.Body, 1<<16))
		return fmt.Errorf("member %d: %s: %s", m.ID, path, words)
	}
	if answer == nil {
		return nil
	}
	return json.NewDecoder(response.Body).Decode(answer)
}

// HTTP is a client for what /debug/pprof has.
func (m *Member) HTTP() *http.Client { return &m.http }

// Status is the member's.
func (m *Member) Status(ctx context.Context) (s arakoon.Status, err error) {
	err = m.Call(ctx, "/status", nil, &s)
	return s, err
}

// Leader waits for a member that leads and that a majority hears.
func (g *Group) Leader(ctx context.Context) (*Member, error) {
	for {
		for _, m := range g.Members() {
			if !m.Running() {
				continue
			}
			one, stop := context.WithTimeout(ctx, time.Second)
			s, err := m.Status(one)
			stop()
			if err == nil && s.Role == arakoon.RoleLeader && s.Obstacle == "" {
				return m, nil
			}
		}
		if err := pause(ctx, 20*time.Millisecond); err != nil {
			return nil, fmt.Errorf("no member leads: %w", err)
		}
	}
}

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Change brings the group to these voters and learners, through whoever leads.
func (g *Group) Change(ctx context.Context, voters, learners []uint64) error {
	form := url.Values{"voters": {joined(voters)}, "learners": {joined(learners)}}
	var last error
	for {
		m, err := g.Leader(ctx)
		if err != nil {
			return errors.Join(err, last)
		}
		one, stop := context.WithTimeout(ctx, 5*time.Second)
		last = m.Call(one, "/members", form, nil)
		stop()
		if last == nil {
			return nil
		}
		if err := pause(ctx, 50*time.Millisecond); err != nil {
			return fmt.Errorf("members %v and learners %v: %w", voters, learners, last)
		}
	}
}

func joined(ids []uint64) string {
	list := make([]string, len(ids))
	for i, id := range ids {
		list[i] = fmt.Sprint(id)
	}
	return strings.Join(list, ",")
}

// Tell gives all members that run the addresses of all.
func (g *Group) Tell(ctx context.Context) {
	for _, m := range g.Members() {
		one, stop := context.WithTimeout(ctx, time.Second)
		_ = m.Call(one, "/peers", url.Values{"list": {g.peers()}}, nil) // one that is away is told at its start
		stop()
	}
}

// Found starts all members that were added as one group: the first makes it, raises its
// level, and takes up the others.
func (g *Group) Found(ctx context.Context) error {
	all := g.Members()
	for i, m := range all {
		if err := m.Start(); err != nil {
			return err
		}
		if i > 0 {
			continue
		}
		if _, err := g.Leader(ctx); err != nil {
			return err
		}
		if err := m.Call(ctx, "/raise", nil, nil); err != nil {
			return err
		}
	}
	g.Tell(ctx)
	var others []uint64
	for _, m := range all[1:] {
		others = append(others, m.ID)
	}
	if len(others) == 0 {
		return nil
	}
	if err := g.Change(ctx, []uint64{all[0].ID}, others); err != nil {
		return err
	}
	return g.Change(ctx, append(others, all[0].ID), nil)
}

// Client makes a client of the group.
func (g *Group) Client(o kvclient.Options) (*kvclient.Client, error) {
	o.Group = Name
	o.Members = func() (list []kvclient.Member) {
		for _, m := range g.Members() {
			list = append(list, kvclient.Member{ID: m.ID, Dial: wire.DialOptions{
				Network: "tcp", Address: m.Address, Identity: wire.Identity{Cluster: g.Cluster},
			}})
		}
		return list
	}
	return kvclient.New(o)
}

// Close kills all members.
func (g *Group) Close() {
	for _, m := range g.Members() {
		if p := m.Process(); p != nil {
			_ = p.Signal(syscall.SIGCONT)
			p.Kill()
		}
		_ = os.Remove(m.socket())
	}
}

// Local makes and founds a group on loopback, of so many members below a directory.
func Local(ctx context.Context, program, dir string, members int, args ...string) (*Group, error) {
	g := New(program, dir, args...)
	for i := range members {
		address, err := Free()
		if err != nil {
			return nil, err
		}
		g.Add(Place{ID: uint64(i + 1), Dir: filepath.Join(dir, fmt.Sprint(i+1)), Address: address}, i > 0)
	}
	if err := g.Found(ctx); err != nil {
		g.Close()
		return nil, err
	}
	return g, nil
}
