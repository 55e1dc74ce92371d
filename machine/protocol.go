package machine

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// operation names a message between agent, supervisor and init. Messages are
// JSON in one packet of a SOCK_SEQPACKET unix socket; descriptors travel beside
// them.
type operation string

const (
	// agent → supervisor
	opWatch  operation = "watch"  // answered once init is ready; the connection then stays open until the Machine ended
	opNetNS  operation = "netns"  // answered with the network namespace
	opStart  operation = "start"  // handed to init
	opSignal operation = "signal" // handed to init
	opExec   operation = "exec"   // handed to init, with stdin, stdout and stderr

	// supervisor → init
	opSetup operation = "setup" // the first message: the spec

	// init → supervisor
	opReady   operation = "ready"   // mounts are in place, or Error says why not
	opStarted operation = "started" // the command runs, with the connection of who asked for it
	opExited  operation = "exited"  // the command ended with Code
	opRelayed operation = "relayed" // the ports that are relayed are now Relayed; also supervisor → agent

	// the answer to any request
	opReply operation = "reply"
)

// message is every message of the protocol; each operation uses some fields.
type message struct {
	Op    operation `json:"op"`
	Error string    `json:"error,omitempty"`
	Code  int       `json:"code,omitempty"`
	Phase Phase     `json:"phase,omitempty"`
	Run   string    `json:"run,omitempty"`
	// Relayed are the ports that are relayed. A watch that says Follow is told of
	// every change; agents of builds before that take any message for the end.
	Relayed []uint16 `json:"relayed,omitempty"`
	Follow  bool     `json:"follow,omitempty"`

	Signal syscall.Signal `json:"signal,omitempty"`
	Exec   *execSpec      `json:"exec,omitempty"`
	Record *record        `json:"record,omitempty"`
}

// execSpec is a command to run inside beside the Machine's own.
type execSpec struct {
	Exec    []string `json:"exec"`
	Env     []string `json:"env,omitempty"`
	WorkDir string   `json:"workdir,omitempty"`
}

const (
	maxMessage     = 1 << 20 // one packet; arguments and environment of a Machine fit, or are refused by the kernel anyhow
	maxDescriptors = 4       // a connection and three standard streams
)

// conn is one end of the protocol. Sends may come from several goroutines, a
// packet is atomic; receive has one caller.
type conn struct {
	*net.UnixConn
}

// dial connects to a supervisor. The error is ECONNREFUSED or ENOENT exactly
// when there is none.
func dial(path string) (*conn, error) {
	c, err := net.DialUnix("unixpacket", nil, &net.UnixAddr{Name: path, Net: "unixpacket"})
	if err != nil {
		return nil, err
	}
	return newConn(c)
}

// noSupervisor tells an error of dial that proves nobody holds the socket.
func noSupervisor(err error) bool {
	return errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, os.ErrNotExist)
}

// connFromFile takes over f, which is one end of a SOCK_SEQPACKET socket.
func connFromFile(f *os.File) (*conn, error) {
	defer f.Close()
	c, err := net.FileConn(f)
	if err != nil {
		return nil, err
	}
	u, ok := c.(*net.UnixConn)
	if !ok {
		c.Close()
		return nil, fmt.Errorf("descriptor %s is a %T, expected a unix socket", f.Name(), c)
	}
	return newConn(u)
}

func newConn(c *net.UnixConn) (*conn, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		c.Close()
		return nil, err
	}
	err = raw.Control(func(fd uintptr) {
		// A packet must fit into the send buffer. Inside a Machine the limit
		// cannot be passed, but there only short answers are sent.
		if unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, 2*maxMessage) != nil {
			_ = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_SNDBUF, 2*maxMessage)
		}
	})
	if err != nil {
		c.Close()
		return nil, err
	}
	return &conn{c}, nil
}

// send writes one message and passes copies of files with it.
func (c *conn) send(m message, files ...*os.File) error {
	b, err := json.Marshal(m)
	if err != nil {
		return err
	}
	if len(b) > maxMessage {
		return fmt.Errorf("message %s has %d bytes, at most %d can be sent: shorten the command or its environment", m.Op, len(b), maxMessage)
	}
	var rights []byte
	if len(files) > 0 {
		fds := make([]int, len(files))
		for i, f := range files {
			fds[i] = int(f.Fd())
		}
		rights = unix.UnixRights(fds...)
	}
	_, _, err = c.WriteMsgUnix(b, rights, nil)
	return err
}

// receive reads one message and the descriptors that came with it, which are
// the caller's to close. The end of the connection is io.EOF or a system error.
func (c *conn) receive() (message, []*os.File, error) {
	buffer := make([]byte, maxMessage)
	oob := make([]byte, unix.CmsgSpace(maxDescriptors*4))
	n, oobn, flags, _, err := c.ReadMsgUnix(buffer, oob)
	if err != nil {
		return message{}, nil, err
	}
	files, err := descriptors(oob[:oobn])
	if err != nil {
		return message{}, nil, err
	}
	if n == 0 {
		closeAll(files)
		return message{}, nil, net.ErrClosed
	}
	var m message
	if flags&(unix.MSG_TRUNC|unix.MSG_CTRUNC) != 0 {
		err = fmt.Errorf("a message was cut off: it had more than %d bytes or %d descriptors", maxMessage, maxDescriptors)
	} else {
		err = json.Unmarshal(buffer[:n], &m)
	}
	if err != nil {
		closeAll(files)
		return message{}, nil, err
	}
	return m, files, nil
}

// call sends a request and waits for its answer.
func (c *conn) call(m message, files ...*os.File) (message, []*os.File, error) {
	if err := c.send(m, files...); err != nil {
		return message{}, nil, err
	}
	reply, received, err := c.receive()
	if err == nil && reply.Error != "" {
		closeAll(received)
		return reply, nil, errors.New(reply.Error)
	}
	return reply, received, err
}

// reply answers a request; err nil is success.
func (c *conn) reply(m message, err error) {
	m.Op = opReply
	if err != nil {
		m.Error = err.Error()
	}
	// Who asked may be gone by now, and then nobody misses the answer.
	_ = c.send(m)
}

// descriptors takes the passed descriptors out of control messages.
func descriptors(oob []byte) ([]*os.File, error) {
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil, err
	}
	var files []*os.File
	for _, m := range messages {
		fds, err := unix.ParseUnixRights(&m)
		if err != nil {
			continue // not descriptors
		}
		for _, fd := range fds {
			files = append(files, os.NewFile(uintptr(fd), "received"))
		}
	}
	return files, nil
}

func closeAll(files []*os.File) {
	for _, f := range files {
		f.Close()
	}
}

// socketPair returns two connected ends that do not survive an exec.
func socketPair() (a, b *os.File, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, os.NewSyscallError("socketpair", err)
	}
	return os.NewFile(uintptr(fds[0]), "socketpair"), os.NewFile(uintptr(fds[1]), "socketpair"), nil
}
