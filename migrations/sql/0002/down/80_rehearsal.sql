DROP TABLE backtests;
DELETE FROM outbox WHERE topic = 'backtests.run';
DELETE FROM schedule_ticks WHERE schedule LIKE 'backtest:%';
