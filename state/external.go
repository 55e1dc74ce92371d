package state

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
)

// RemoteConfig says how to reach a store that runs elsewhere: the fleet's own, which
// other hosts embed, or an etcd cluster of the operator's.
type RemoteConfig struct {
	Endpoints []string    // URLs: https://192.0.2.1:51822
	TLS       *tls.Config // nil for http:// endpoints only
	// User and Password, for a cluster that has its own users.
	User, Password string
	Log            *slog.Logger
	// MayBeAway has a client returned though the store did not answer: it does when the
	// store is there again.
	MayBeAway bool
	// Patience is how long the first answer may take. 0: ten seconds.
	Patience time.Duration
	// Fleet says that the store is the fleet's own, which knows each host by the key of its
	// certificate; a cluster of the operator's has rules of its own.
	Fleet bool
	// Lazy does without a first answer: for a host that has a last state to go on with.
	Lazy bool
}

const (
	defaultPatience = 10 * time.Second
	dialTimeout     = 3 * time.Second
	// A connection whose other end is silent is asked for a sign of life, and given up
	// without one; less than ten seconds between two are not possible. Requests that are
	// under way find it out in silenceLimit, by the kernel's own timeout.
	silenceAsked = 10 * time.Second
	silenceLimit = 3 * time.Second
)

// connecting is how connections are tried again. By itself gRPC would wait up to two
// minutes after an outage, and leases do not.
var connecting = grpc.ConnectParams{
	Backoff:           backoff.Config{BaseDelay: 100 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: 2 * time.Second},
	MinConnectTimeout: dialTimeout,
}

// OpenRemote returns a client of a store that runs elsewhere, once that has answered,
// unless the configuration says Lazy. Of several endpoints those that do not answer are
// passed over, then and later. The error is of kind Unavailable, Invalid when the
// endpoints or the credentials are wrong, or Conflict when the store of
// the fleet refuses this host.
func OpenRemote(ctx context.Context, c RemoteConfig) (*clientv3.Client, error) {
	for _, e := range c.Endpoints {
		if secure := strings.HasPrefix(e, "https://"); secure && c.TLS == nil || !secure && !strings.HasPrefix(e, "http://") {
			return nil, refuse(Invalid, "store", "%q is no endpoint of a store: expected a URL such as https://192.0.2.1:2379", e)
		}
	}
	if len(c.Endpoints) == 0 {
		return nil, refuse(Invalid, "store", "no endpoint of the store is known: expected URLs such as https://192.0.2.1:2379")
	}
	log := c.Log
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	ctx, cancel := context.WithTimeout(ctx, orDefault(c.Patience, defaultPatience))
	defer cancel()
	client, err := clientv3.New(clientv3.Config{
		Endpoints: c.Endpoints, TLS: c.TLS, Username: c.User, Password: c.Password,
		Logger:               newZapLogger(log, new(atomic.Bool)),
		DialTimeout:          dialTimeout,
		DialKeepAliveTime:    silenceAsked,
		DialKeepAliveTimeout: silenceLimit,
		MaxCallSendMsgSize:   maxSendBytes,
		DialOptions:          []grpc.DialOption{grpc.WithConnectParams(connecting)},
	})
	if err != nil {
		return nil, explainRemote(c, err)
	}
	if c.Lazy {
		return client, nil
	}
	// New only prepares. Reading something shows that the store is there, and that this
	// client may use it.
	if _, err := client.Get(ctx, root, clientv3.WithLimit(1), clientv3.WithPrefix(), clientv3.WithKeysOnly()); err != nil {
		err = explainRemote(c, err)
		if c.MayBeAway && KindOf(err) == Unavailable {
			log.Warn("the store does not answer", "error", err)
			return client, nil
		}
		return nil, errors.Join(err, client.Close())
	}
	return client, nil
}

func explainRemote(c RemoteConfig, err error) error {
	where := strings.Join(c.Endpoints, ",")
	for _, wrong := range []error{rpctypes.ErrAuthFailed, rpctypes.ErrUserEmpty, rpctypes.ErrUserNotFound, rpctypes.ErrPermissionDenied, rpctypes.ErrAuthNotEnabled} {
		if errors.Is(err, wrong) || strings.Contains(err.Error(), wrong.Error()) {
			return &Error{Kind: Invalid, Field: "store", cause: err, Message: fmt.Sprintf(
				"the store at %s refuses this user (%v): give one that may read and write everything below %s, or none if it has no users", where, err, root)}
		}
	}
	if refusal := Refusal(c); refusal != nil {
		return refusal
	}
	return &Error{Kind: Unavailable, cause: err, Message: fmt.Sprintf(
		"the store at %s does not answer (%v): check that it runs, that these addresses are reached from here, and that the certificates are of its authority", where, err)}
}

// refusalTime is how long is waited for a refusal: it comes at once or not at all.
const refusalTime = 500 * time.Millisecond

// Refusal asks the members of the fleet's own store whether they take this host for one of
// the fleet. The error of the first one that does not is of kind Conflict, and says what to
// do; nil if none refuses it, or the store is no fleet's. The client of etcd keeps what was
// said to itself.
func Refusal(c RemoteConfig) error {
	if !c.Fleet {
		return nil
	}
	for _, e := range c.Endpoints {
		if refusal := refusedAt(e, c.TLS); refusal != nil {
			return &Error{Kind: Conflict, Field: "store", cause: errors.Join(errRefused, refusal), Message: fmt.Sprintf(
				"the store at %s does not take this host's certificate for that of a host of the fleet (%v): %s", e, refusal, JoinAgain)}
		}
	}
	return nil
}

// errRefused is that the store does not take this host for one of the fleet.
var errRefused = errors.New("the store refuses this host")

func refusedAt(endpoint string, config *tls.Config) error {
	address, ok := strings.CutPrefix(endpoint, "https://")
	if !ok {
		return nil
	}
	config = config.Clone()
	config.NextProtos = []string{"h2"}
	conn, err := tls.DialWithDialer(&net.Dialer{Timeout: refusalTime}, "tcp", address, config)
	if err != nil {
		return nil
	}
	defer conn.Close()
	// By TLS 1.3 who connects hears of it with the first answer.
	_ = conn.SetReadDeadline(time.Now().Add(refusalTime)) // every connection can
	if _, err = conn.Read(make([]byte, 1)); err != nil && strings.Contains(err.Error(), "tls: bad certificate") {
		return err
	}
	return nil
}

// StoreEndpoints is where clients reach the members of the fleet's own store now, for
// OpenRemote. Empty if it is heard on its own host only.
func StoreEndpoints(ctx context.Context, client *clientv3.Client) ([]string, error) {
	members, err := client.MemberList(ctx)
	if err != nil {
		return nil, unavailable("look for the members of the store", err)
	}
	var endpoints []string
	for _, m := range members.Members {
		for _, url := range m.ClientURLs {
			if !m.IsLearner && strings.HasPrefix(url, "https://") {
				endpoints = append(endpoints, url)
			}
		}
	}
	slices.Sort(endpoints)
	return endpoints, nil
}

// RemoteHealth asks one member of a store that runs elsewhere how it does. A store that
// does not answer is the zero Health. What its limit is, it does not say.
func RemoteHealth(ctx context.Context, client *clientv3.Client) Health {
	for _, endpoint := range client.Endpoints() {
		status, err := client.Status(ctx, endpoint)
		if err != nil {
			continue
		}
		return Health{
			Serving: true, Leader: status.Leader != 0, Revision: status.Header.Revision,
			Bytes: status.DbSize, UsedBytes: status.DbSizeInUse,
		}
	}
	return Health{}
}
