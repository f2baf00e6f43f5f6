package main

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"net/http/pprof"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"time"

	"openvstorage/arakoon"
	"openvstorage/arakoon/state"
	"openvstorage/arakoon/transport"
	"openvstorage/scripts/group"
)

// book has the addresses of all members.
type book struct {
	mu sync.Mutex
	at map[uint64]string
}

func newBook() *book { return &book{at: map[uint64]string{}} }

func (b *book) get(member uint64) (string, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	a, ok := b.at[member]
	return a, ok
}

// set replaces all by a list of NUMBER=ADDRESS.
func (b *book) set(list string) error {
	at := map[uint64]string{}
	for one := range strings.SplitSeq(list, ",") {
		number, address, ok := strings.Cut(one, "=")
		id, err := strconv.ParseUint(number, 10, 64)
		if !ok || err != nil || address == "" {
			return fmt.Errorf("%q is not NUMBER=HOST:PORT", one)
		}
		at[id] = address
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.at = at
	return nil
}

// control serves the driver's calls on a unix socket. It is on a path of its own, so that it
// answers while the member's disk is full or hangs.
func control(c config, n *arakoon.Node, t *transport.Transport) (stop func(), err error) {
	if err := os.Remove(c.control); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	l, err := net.Listen("unix", c.control)
	if err != nil {
		return nil, err
	}
	mux := http.NewServeMux()
	handle := func(path string, f func(r *http.Request) (any, error)) {
		mux.HandleFunc(path, func(w http.ResponseWriter, r *http.Request) {
			answer, err := f(r)
			if err != nil {
				w.WriteHeader(http.StatusConflict)
				fmt.Fprint(w, err)
				return
			}
			_ = json.NewEncoder(w).Encode(answer)
		})
	}
	handle("/status", func(*http.Request) (any, error) { return n.Status(), nil })
	handle("/transport", func(*http.Request) (any, error) { return t.Stats(), nil })
	handle("/members", func(r *http.Request) (any, error) {
		voters, err1 := numbers(r.FormValue("voters"))
		learners, err2 := numbers(r.FormValue("learners"))
		if err := errors.Join(err1, err2); err != nil {
			return nil, err
		}
		return nil, n.ChangeMembers(r.Context(), arakoon.Members{Voters: voters, Learners: learners})
	})
	handle("/peers", func(r *http.Request) (any, error) {
		if err := c.peers.set(r.FormValue("list")); err != nil {
			return nil, err
		}
		t.Update()
		return nil, nil
	})
	handle("/transfer", func(r *http.Request) (any, error) { return nil, n.Transfer(r.Context(), 0) })
	handle("/raise", func(r *http.Request) (any, error) {
		return nil, n.RaiseLevel(r.Context(), state.LevelNewest, true)
	})
	handle("/hash", func(r *http.Request) (any, error) {
		if at := r.FormValue("index"); at != "" {
			index, err := strconv.ParseUint(at, 10, 64)
			if err != nil {
				return nil, err
			}
			sum, err := n.HashAt(r.Context(), index)
			return group.Hash{Index: index, Sum: hex.EncodeToString(sum[:])}, err
		}
		index, sum, err := n.Hash(r.Context())
		return group.Hash{Index: index, Sum: hex.EncodeToString(sum[:])}, err
	})
	handle("/keys", func(r *http.Request) (any, error) {
		all := map[string][]byte{}
		err := n.Range(r.Context(), arakoon.Local, nil, nil, 0, func(key, value []byte) bool {
			all[string(key)] = value
			return true
		})
		return all, err
	})
	handle("/local", func(r *http.Request) (any, error) { return local(r, n) })
	mux.HandleFunc("/debug/pprof/", pprof.Index)
	mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
	if os.Getenv("MEMBER_BLOCK") != "" {
		runtime.SetBlockProfileRate(10000)
	}
	s := &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second}
	go func() { _ = s.Serve(l) }()
	return func() { _ = s.Close() }, nil
}

// local measures reads in this process: how many nanoseconds one takes.
func local(r *http.Request, n *arakoon.Node) (any, error) {
	const reads = 20000
	key := []byte(r.FormValue("key"))
	began := time.Now()
	for range reads {
		if _, err := n.Get(r.Context(), arakoon.Local, key); err != nil {
			return nil, err
		}
	}
	return time.Since(began).Nanoseconds() / reads, nil
}

func numbers(list string) (ids []uint64, err error) {
	if list == "" {
		return nil, nil
	}
	for one := range strings.SplitSeq(list, ",") {
		id, err := strconv.ParseUint(one, 10, 64)
		if err != nil {
			return nil, fmt.Errorf("member %q: %w", one, err)
		}
		ids = append(ids, id)
	}
	return ids, nil
}
