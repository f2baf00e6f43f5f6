// Package systemd tells the service manager in what state this process is, and
// takes the sockets that it has opened for it. Without a manager that wants to
// know (see sd_notify(3), sd_watchdog_enabled(3), sd_listen_fds(3)) it does nothing.
package systemd
