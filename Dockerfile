FROM golang:1.26.8 AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
RUN CGO_ENABLED=0 go build -trimpath -ldflags "-s -w" -o /sixpn ./cmd/sixpn

# Run it with --privileged --network host and /sys/fs/bpf, /sys/fs/cgroup and a
# state directory of the host mounted.
FROM scratch
COPY --from=build /sixpn /sixpn
ENTRYPOINT ["/sixpn"]
