package host

import (
	"context"
	"log/slog"
	"os"
	"runtime"
	"time"

	"openvstorage/fusefs/transport"
	"openvstorage/internal/size"
)

// Options say what is served, and how. All fields without a default are needed.
type Options struct {
	Dir     string // the data directory, absolute; made if it is absent or empty
	Release string // of this binary
	Logger  *slog.Logger

	NBDUnix   string   // path of the NBD socket
	SocketDir string   // of the sockets that have no other place; "": Dir
	NBDTCP    []string // addresses to serve NBD on too
	NBDTLS    NBDTLS   // of these, and of systemd's sockets of TCP
	Metrics   string   // address to serve metrics on; "": nowhere
	Insecure  bool     // addresses may be such that other machines reach

	Cluster Cluster // with other hosts; zero: none

	WriteBuffer size.Bytes    // bytes on disk
	MapCache    size.Bytes    // bytes in memory
	NBDMemory   size.Bytes    // bytes in memory, beside what each client may always have
	NBDClients  int           // connections at once
	Uploads     int           // SCOs put to the backend side by side
	ReadWait    time.Duration // reads wait so long for disks; 0: for ever, below 0: not at all

	Backend     string   // BackendALBA, BackendLocal, BackendProxy, or "": what Dir has, or else ALBA
	Proxies     []string // of BackendProxy: unix sockets of the process that has the backend, in order of preference
	Proxy       string   // unix socket on which other processes may use the backend; "": none
	ALBA        ALBA
	AcceptOlder bool // go on with a data directory that is older than its disks

	Mount      string // empty directory to mount the vDisks on; "": nowhere
	AllowOther bool   // other users may use the mount
	Ways       transport.Ways
	FUSEMemory size.Bytes // 0: the default of the mount
	self       bool       // tests open files of the mount in this process

	// Loop has another process do something with a loop device: see attach.Config.
	Loop func(ctx context.Context, args ...string) (string, error)

	// Announce is called for each service when all are up, one after the other; then
	// Ready is called. If one of them fails, so does the start.
	Announce func(Service) error
	Ready    func() error
}

// Service is a service that is up, and where it is.
type Service struct {
	Service string `json:"service"` // "nbd", "manage", "metrics", "mount", "cluster" or "proxy"
	Address string `json:"address"`
}

// setProcs lets more goroutines run than there are cores, because a goroutine that waits
// for a sync keeps its processor for a while. If GOMAXPROCS is set, that counts.
func setProcs() {
	if os.Getenv("GOMAXPROCS") == "" {
		runtime.GOMAXPROCS(max(4, 2*runtime.GOMAXPROCS(0)))
	}
}
